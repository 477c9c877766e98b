"""The task `recommend`: a recommender that learns in dialogues with a simulated seeker, as in TART.

The original is hirooms2/Learning2Interact. A prompt is the beginning of a dialogue with the items that the seeker
looks for. The policy asks or recommends, the seeker answers, and the dialogue is a success when a target is among the
first items of a recommendation. What the seeker writes is masked.

A teacher explores the pool first (`explore.py`). Its dialogues are the cold start's examples, and they decide from
where the rollouts of the rounds start. Teacher and seeker are scripts, or models behind an endpoint (`players.py`).
`invented.py` makes up a small world of films for models that run on a CPU.
"""
