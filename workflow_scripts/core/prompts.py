"""From a question to the exact text that a policy is asked with."""

TEMPLATES = {
    # AutoCode's ds=1
    "deepseek": "User:{question}\n\nAssistant:",
    # AutoCode's ds=0
    "alpaca": "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{question}\n\n### Response:",
}


def render(template: str, question: str, tokenizer=None) -> str:
    """The full prompt: a named template, or the tokenizer's own for `chat`."""
    if template == "chat":
        messages = [{"role": "user", "content": question}]
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return TEMPLATES[template].format(question=question)
