"""Errors of topics, one class per remedy."""

from everstream.errors import EverstreamError
from everstream.log.positions import position_text


class UnknownTopic(EverstreamError):
    status = 404
    code = "topic_not_found"

    def __init__(self, message: str = "there is no such topic", *, param: str | None = None) -> None:
        super().__init__(message, param=param)


class TopicGone(EverstreamError):
    """It was deleted, but forks of it are left."""

    status = 410
    code = "topic_gone"

    def __init__(self) -> None:
        super().__init__("this topic was deleted")


class PositionGone(EverstreamError):
    """A topic no longer has what comes after this position, or the log has lost it."""

    status = 410
    code = "position_gone"


class TopicConflict(EverstreamError):
    status = 409
    code = "topic_conflict"


class ContentTypeConflict(TopicConflict):
    """`content_type`: the topic's."""

    code = "content_type_conflict"

    def __init__(self, content_type: str) -> None:
        super().__init__(f"this topic's content type is {content_type:.100}", param="Content-Type")
        self.content_type = content_type


class SequenceConflict(TopicConflict):
    code = "sequence_conflict"


class TopicClosed(TopicConflict):
    """`top`: the position of its last message."""

    code = "topic_closed"

    def __init__(self, top: int) -> None:
        super().__init__("this topic is closed")
        self.headers = {"Stream-Closed": "true", "Stream-Next-Offset": position_text(top)}


class ProducerFenced(EverstreamError):
    """Another with the same id has begun a later epoch."""

    status = 403
    code = "producer_fenced"

    def __init__(self, epoch: int) -> None:
        super().__init__(f"this producer's epoch is {epoch} now", param="Producer-Epoch")
        self.headers = {"Producer-Epoch": str(epoch)}


class ProducerGap(TopicConflict):
    code = "producer_gap"

    def __init__(self, expected: int, received: int) -> None:
        super().__init__(f"the producer's next sequence number is {expected}, not {received}", param="Producer-Seq")
        self.headers = {"Producer-Expected-Seq": str(expected), "Producer-Received-Seq": str(received)}
