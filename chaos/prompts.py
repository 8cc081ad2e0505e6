"""Fixed sets of distinct requests, so that every stream can be compared with an undisturbed run."""

EMOJI = "🙂🎉🚀🌍👩‍👩‍👧‍👦漢字日本語"
WORDS = ("ocean", "Привет", "漢字", "🚀🎉", "line\nbreak", "naïve café", "  spaces  ", "العربية")

# The tiny model answers any prompt with random words, up to max_tokens.
TINY = [
    {"prompt": f"{number} {word}", "max_tokens": 120 + 11 * number, "temperature": 0}
    for number, word in enumerate(WORDS * 3)
] + [
    {"prompt": "with stop strings", "max_tokens": 400, "temperature": 0, "stop": ["ing th", "zzzz"]},
    {"prompt": "with a stop string that comes", "max_tokens": 400, "temperature": 0, "stop": [" h"]},
    {"prompt": "short", "max_tokens": 1, "temperature": 0},
    {"prompt": "with a system prompt", "system": "Be odd 🙃", "max_tokens": 250, "temperature": 0},
]

_TOPICS = ("the sea", "a robot who learns to paint", "winter in Прага", "日本語 and its three scripts")
SMOLLM2 = [
    {"prompt": f"Repeat after me, exactly: {EMOJI}", "max_tokens": 120, "temperature": 0},
    {"prompt": "Write a line of emoji only, twenty of them 🎉🚀", "max_tokens": 150, "temperature": 0},
    {"prompt": "Повтори: Привет, как дела?", "max_tokens": 120, "temperature": 0},
    {"prompt": "Count from 1 to 20", "max_tokens": 150, "temperature": 0, "stop": ["17", "never said"]},
    {"prompt": "重复 你好 世界 今天天气很好", "max_tokens": 100, "temperature": 0},
    {"prompt": "Say hello in ten languages", "max_tokens": 140, "temperature": 0},
    {"prompt": "Write the alphabet, one letter a line", "max_tokens": 130, "temperature": 0, "stop": ["\nX"]},
    {"prompt": "Translate to Russian: good morning, my friend", "max_tokens": 80, "temperature": 0},
] + [
    {"prompt": template.format(topic), "max_tokens": length, "temperature": 0}
    for topic in _TOPICS
    for template, length in (("Tell a story of {}", 110), ("List 5 facts about {}", 90), ("Write a poem on {} 🌊", 70))
]

# Each text names its request, so that one request's text in another's is seen.
PLAIN = [
    {"word": f"{word}{number}", "count": 30 + 5 * number, "pause_ms": 6}
    for number, word in enumerate(("a", "Привет", "漢字", "🚀") * 3)
]
