"""Graded answers for tests of what people see."""


def answered(number: int, round: int, reward: float, text: str, level: str = "a") -> dict:
    """Return a graded answer to question `number`."""
    return {
        "uid": f"q{number}.auto.0",
        "id": f"q{number}",
        "question": f"What is {number}?",
        "reference": str(number),
        "level": level,
        "trigger": "auto",
        "answer": text,
        "mask": [1] * 5,
        "finish": "eos",
        "reward": reward,
        "path": "cot" if round else "pot",
    }
