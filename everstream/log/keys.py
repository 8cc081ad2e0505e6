"""Names of the log's keys in Valkey, all with one hash tag so that a cluster keeps them in one slot.

{ns}:jobs        stream with the consumer group `engines`: the queue. A claimed job is a pending entry: the lease.
                 If several models are served, each has its own queue, {ns}:jobs:<queue>
                 A job that nobody has claimed is also in {ns}:waiting[:<queue>]/<client>, a list of job ids with their
                 generations. A client is an owner, or an address. {ns}:turns[:<queue>] is the list of clients
                 that have such jobs, the next one first
{ns}:running/<client>  set: its generations that engines have claimed
{ns}:wake[:<queue>]  stream: its newest entry tells engines that a client fell below its own limit
{ns}:checked/<client>  its running generations were looked at a moment ago
{ns}:clients       hash: each generation's client
{ns}:tokens/<minute>/<client>  how many tokens its generations had in this minute since 1970
{ns}:gen:<id>    hash: state (open, or how it ended), model, queue, owner, job_id, digest, request_key, stop;
                 max_running, its client's own limit; entries_bytes, tokens; thread_key;
                 abandon_after_ms, if it has its own; record, what an API wants to know of it later; and job, a `Job`,
                 while it is open. Without a `queue`, it is in {ns}:jobs
{ns}:log:<id>    string: a line for each entry, see `entries.encode_lines`
{ns}:read        sorted set: when each open generation was last read, by the server's clock, in ms
{ns}:finished    sorted set: when each finished generation ended, by the same clock; {ns}:finished/<client>: its own
{ns}:sizes       hash: about how many bytes each generation takes; {ns}:bytes is the sum, and
                 {ns}:client_bytes, a sorted set, the sums per client
{ns}:probe:…     short-lived keys that `/readyz` writes as a test
{ns}:counters    hash: `counters.COUNTERS`, and the fields of `histograms.KINDS`
{ns}:slots/<client>  sorted set: when each open stream of a client with a limit expires, by the server's clock, in ms
{ns}:worker:<name>  a web process's `WorkerStatus`; expires unless it is repeated
{ns}:workers     sorted set: when each of these expires, by the server's clock, in ms
{ns}:live        channel: newly appended entries, [[generation, first n, [entry, ...]], ...]
{ns}:topics_live channel: newly appended messages of topics, [number, topic, first position, [entry, ...]]; without
                 entries, the topic was closed or deleted
{ns}:control     channel: generations to cancel
{ns}:req:<owner>:<id>  the generation that an owner's request id started; without keys, {ns}:req:<id>
{ns}:thread:<owner>:<name>  the newest generation of one of an owner's threads; without keys, {ns}:thread:<name>
{ns}:api_keys    hash: each `ApiKey` in JSON, by its id
{ns}:guarded     a key was added once: see `api_keys`
{ns}:signing_secret  what sessions and tickets are signed with
{ns}:model:<queue>  the `ModelDescription` of the engine that last started for this queue, in JSON
{ns}:loading:<queue>  how far a model of this queue is loaded, in words; expires soon
{ns}:engine:<name>  an engine's status
{ns}:engine_names   sorted set: when each of these statuses expires, by the server's clock, in ms
{ns}:kill:<name>    an engine has been asked to kill itself; expires soon
{ns}:kill_turn:<what>  something was killed by request a moment ago
{ns}:validations    sorted set: `ValidationRequest`s that no engine has taken, and when their senders give up, by the
                    same clock; {ns}:long_validations: those with long text. If several models are served, each has
                    its own two, {ns}:validations:<queue> and {ns}:long_validations:<queue>
{ns}:topic:<owner>:<name>  hash: what is known about a topic, see `lua/topics.lua`; {ns}:messages:<owner>:<name> is the
                 stream of its messages, whose ids are <position>-0; {ns}:message_ids:… a hash, the position of each
                 that has an id of its publisher's; {ns}:producers:… a hash, each producer's epoch and sequence number;
                 {ns}:producers_heard:… a sorted set, the position of the last that each has sent
{ns}:topics:<owner>  sorted set: the names of an owner's topics, by the position of the last change
{ns}:topics_clock    hash: the last position of all topics, and how many messages were sent to {ns}:topics_live
{ns}:present:<owner>:<name>  hash: who follows a topic in each web process, in JSON, after the time at which that
                 expires
{ns}:topics_due      sorted set: when topics expire, by the server's clock, in ms
{ns}:topic_bytes     about how many bytes all topics take; {ns}:topic_client_bytes, a sorted set, the sums per client
{ns}:gone_topics:<owner>  sorted set: the names of topics that were deleted or expired, by the position at that time;
                 those that were removed from it did so before {ns}:gone_before, a hash, says for each owner
{ns}:validation:<id>  one of these requests, until then; {ns}:validation_reply:<id> is the list for its reply
"""

GROUP = "engines"


class Keys:
    """Names of keys under one namespace. `jobs`, `model`, `loading` and `validations` are those of one queue."""

    def __init__(self, namespace: str, queue: str = "") -> None:
        self.ns = f"{{{namespace}}}:"
        self.queue = queue
        self._of_queue = f":{queue}" if queue else ""
        self.jobs = self.ns + "jobs" + self._of_queue
        self.wake = self.ns + "wake" + self._of_queue
        self.model = f"{self.ns}model:{queue}"
        self.loading = f"{self.ns}loading:{queue}"
        self.live = self.ns + "live"
        self.topics_live = self.ns + "topics_live"
        self.topics_clock = self.ns + "topics_clock"
        self.control = self.ns + "control"
        self.counters = self.ns + "counters"
        self.bytes = self.ns + "bytes"
        self.api_keys = self.ns + "api_keys"
        self.guarded = self.ns + "guarded"
        self.signing_secret = self.ns + "signing_secret"

    def generation(self, generation: str) -> str:
        return f"{self.ns}gen:{generation}"

    def log(self, generation: str) -> str:
        return f"{self.ns}log:{generation}"

    def request(self, request_id: str, owner: str) -> str:
        """Request ids have no colon, so no owner's can be taken for another's."""
        return f"{self.ns}req:{owner}:{request_id}" if owner else f"{self.ns}req:{request_id}"

    def thread(self, name: str, owner: str) -> str:
        """Names of threads have no colon either."""
        return f"{self.ns}thread:{owner}:{name}" if owner else f"{self.ns}thread:{name}"

    def slots(self, client: str) -> str:
        return f"{self.ns}slots/{client}"

    def engine(self, name: str) -> str:
        return f"{self.ns}engine:{name}"

    def kill(self, name: str) -> str:
        return f"{self.ns}kill:{name}"

    def kill_turn(self, what: str) -> str:
        return f"{self.ns}kill_turn:{what}"

    def validations(self, *, long: bool) -> str:
        return self.ns + ("long_validations" if long else "validations") + self._of_queue

    def validation(self, validation: str) -> str:
        return f"{self.ns}validation:{validation}"

    def validation_reply(self, validation: str) -> str:
        return f"{self.ns}validation_reply:{validation}"
