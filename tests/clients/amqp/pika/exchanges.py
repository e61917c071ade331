"""Exchanges of all kinds, and bindings between them and to queues."""

from client import bodies, disconnected, empty, publish, ready, refused
from pika.exceptions import UnroutableError


def exchange(case, channel, kind, what="exchange", **options):
    name = case.name(what)
    channel.exchange_declare(name, kind, **({"auto_delete": True} | options))
    return name


def reached(channel, queues, source, key, body="x", **properties):
    """Which of the queues a message gets to, each of them once."""
    publish(channel, key, body, exchange=source, **properties)
    found = {name: bodies(channel, queue) for name, queue in queues.items()}
    assert all(len(got) <= 1 for got in found.values()), found
    return sorted(name for name, got in found.items() if got)


def there_from_the_beginning(case):
    connection = case.connection()
    for name in ("amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match"):
        connection.channel().exchange_declare(name, passive=True)
    for name, kind in (("amq.direct", "direct"), ("amq.topic", "topic"), ("amq.match", "headers")):
        connection.channel().exchange_declare(name, kind, durable=True)
        refused(403, lambda n=name: connection.channel().exchange_delete(n))


def default(case):
    connection = case.connection()
    channel = case.channel(connection)
    queue = case.queue(channel)
    publish(channel, queue, "x")
    assert bodies(channel, queue, 1) == ["x"]
    refused(403, lambda: connection.channel().queue_bind(queue, "", "k"))
    refused(403, lambda: connection.channel().queue_unbind(queue, "", queue))
    refused(403, lambda: connection.channel().exchange_delete(""))
    refused(403, lambda: connection.channel().exchange_declare("", "direct", durable=True))


def direct(case):
    channel = case.channel()
    source = exchange(case, channel, "direct")
    queues = {name: case.queue(channel, name) for name in "abc"}
    for name, key in (("a", "one"), ("b", "one"), ("b", "two"), ("c", "")):
        channel.queue_bind(queues[name], source, key)
    assert reached(channel, queues, source, "one") == ["a", "b"]
    assert reached(channel, queues, source, "two") == ["b"]
    assert reached(channel, queues, source, "") == ["c"]
    assert reached(channel, queues, source, "#") == []
    channel.queue_unbind(queues["b"], source, "one")
    assert reached(channel, queues, source, "one") == ["a"]


def fanout(case):
    channel = case.channel()
    source = exchange(case, channel, "fanout")
    queues = {name: case.queue(channel, name) for name in "abc"}
    for name in "ab":
        channel.queue_bind(queues[name], source, f"ignored-{name}")
    assert reached(channel, queues, source, "anything") == ["a", "b"]


PATTERNS = ["a.b.c", "a.*.c", "a.#", "#", "*", "*.*", "#.c", "a.#.c", "*.b.#", "", "a..c", "#.#", "*.#", "#.b.#", "a.*", ".#"]
KEYS = ["a.b.c", "a.c", "a", "", "a.b", "b", "a.b.b.c", "c", "a..c", ".", "x.b", "a.b.c.d", "*", "a.*.c", "...", "b.b.b"]


def matches(pattern, key):
    """Whether words match: `*` is one of them, `#` any number."""
    if not pattern:
        return not key
    if pattern[0] == "#":
        return any(matches(pattern[1:], key[n:]) for n in range(len(key) + 1))
    return bool(key) and pattern[0] in ("*", key[0]) and matches(pattern[1:], key[1:])


def words(text):
    return text.split(".") if text else []


def topic(case):
    channel = case.channel()
    source = exchange(case, channel, "topic")
    queues = {pattern: case.queue(channel, f"topic-{n}") for n, pattern in enumerate(PATTERNS)}
    for pattern, queue in queues.items():
        channel.queue_bind(queue, source, pattern)
    for key in KEYS:
        wanted = sorted(p for p in PATTERNS if matches(words(p), words(key)))
        assert reached(channel, queues, source, key) == wanted, f"{key!r} has to reach {wanted}"


def headers(case):
    channel = case.channel()
    source = exchange(case, channel, "headers")
    bound = {
        "all": {"x-match": "all", "a": 1, "b": "two"},
        "any": {"x-match": "any", "a": 1, "b": "two"},
        "as it comes": {"a": 1},
        "there": {"x-match": "all", "a": None},
        "nothing, all": {"x-match": "all"},
        "nothing, any": {"x-match": "any"},
    }
    queues = {name: case.queue(channel, f"headers-{n}") for n, name in enumerate(bound)}
    for name, arguments in bound.items():
        channel.queue_bind(queues[name], source, "ignored", arguments)

    def to(**values):
        return reached(channel, queues, source, "other", headers=values)

    assert to(a=1, b="two", c=3) == sorted(["all", "any", "as it comes", "there", "nothing, all"])
    assert to(a=1) == sorted(["any", "as it comes", "there", "nothing, all"])
    assert to(b="two") == sorted(["any", "nothing, all"])
    assert to(a=2) == sorted(["there", "nothing, all"])
    assert to(a="1") == sorted(["there", "nothing, all"])
    assert reached(channel, queues, source, "none at all") == ["nothing, all"]


def headers_with_x(case):
    """x-... are not looked at, unless the binding says so."""
    channel = case.channel()
    source = exchange(case, channel, "headers")
    queues = {name: case.queue(channel, name) for name in ("all", "all-with-x", "any-with-x")}
    for name, queue in queues.items():
        channel.queue_bind(queue, source, "", {"x-match": name, "x-mine": 1, "a": 1})
    assert reached(channel, queues, source, "", headers={"a": 1}) == ["all", "any-with-x"]
    assert reached(channel, queues, source, "", headers={"a": 1, "x-mine": 1}) == ["all", "all-with-x", "any-with-x"]
    assert reached(channel, queues, source, "", headers={"a": 2, "x-mine": 1}) == ["any-with-x"]
    refused(406, lambda: channel.queue_bind(queues["all"], source, "", {"x-match": "some"}), "x-match")


def declared_otherwise(case):
    connection = case.connection()
    name = exchange(case, connection.channel(), "topic", durable=True, auto_delete=False, arguments={"alternate-exchange": "amq.fanout"})

    def differs(word, kind="topic", durable=True, auto_delete=False, internal=False, alternate="amq.fanout"):
        arguments = {"alternate-exchange": alternate} if alternate else {}
        channel = connection.channel()
        refused(406, lambda: channel.exchange_declare(name, kind, False, durable, auto_delete, internal, arguments), word)

    differs("type", kind="direct")
    differs("durable", durable=False)
    differs("auto_delete", auto_delete=True)
    differs("internal", internal=True)
    differs("alternate-exchange", alternate="amq.direct")
    connection.channel().exchange_declare(name, "topic", False, True, False, False, {"alternate-exchange": "amq.fanout"})
    connection.channel().exchange_declare(name, passive=True)
    connection.channel().exchange_delete(name)


def refused_declarations(case):
    connection = case.connection()
    refused(404, lambda: connection.channel().exchange_declare(case.name("absent"), passive=True), case.name("absent"))
    refused(403, lambda: connection.channel().exchange_declare("amq.mine", "direct"), "reserved")
    disconnected(503, lambda: case.connection().channel().exchange_declare(case.name("odd"), "no-such-kind"), "no-such-kind")


def deleted(case):
    connection = case.connection()
    channel = case.channel(connection)
    queue = case.queue(channel)
    name = exchange(case, channel, "direct", auto_delete=False)
    channel.queue_bind(queue, name, "k")
    refused(406, lambda: connection.channel().exchange_delete(name, if_unused=True), "in use")
    channel.exchange_delete(name)
    refused(404, lambda: connection.channel().exchange_declare(name, passive=True))
    channel.exchange_delete(name)
    # and its bindings went with it
    channel.exchange_declare(name, "direct", auto_delete=False)
    assert reached(channel, {"q": queue}, name, "k") == []
    channel.exchange_delete(name, if_unused=True)


def a_queue_takes_its_bindings_along(case):
    channel = case.channel()
    name = exchange(case, channel, "direct", auto_delete=False)
    queue = case.queue(channel)
    channel.queue_bind(queue, name, "k")
    channel.queue_delete(queue)
    channel.queue_declare(queue, exclusive=True)
    assert reached(channel, {"q": queue}, name, "k") == []
    channel.exchange_delete(name, if_unused=True)


def goes_with_its_last_binding(case):
    connection = case.connection()
    channel = connection.channel()
    name = exchange(case, channel, "direct")
    one, two = case.queue(channel, "one"), case.queue(channel, "two")
    channel.exchange_declare(name, passive=True)
    channel.queue_bind(one, name, "k")
    channel.queue_bind(two, name, "k")
    channel.queue_unbind(one, name, "k")
    channel.exchange_declare(name, passive=True)
    channel.queue_delete(two)
    refused(404, lambda: connection.channel().exchange_declare(name, passive=True))


def bound_twice(case):
    channel = case.channel()
    source = exchange(case, channel, "topic")
    queue = case.queue(channel)
    for key in ("a.*", "a.*", "*.b", "a.b"):
        channel.queue_bind(queue, source, key)
    publish(channel, "a.b", "once", exchange=source)
    assert bodies(channel, queue, 1) == ["once"]
    empty(channel, queue)
    channel.queue_unbind(queue, source, "a.*")
    assert reached(channel, {"q": queue}, source, "a.c") == []
    assert reached(channel, {"q": queue}, source, "a.b") == ["q"]
    # what is not bound is unbound already
    channel.queue_unbind(queue, source, "never")


def bound_with_other_arguments(case):
    """Bindings that differ in their arguments alone are two."""
    channel = case.channel()
    source = exchange(case, channel, "direct")
    queue = case.queue(channel)
    channel.queue_bind(queue, source, "k", {"note": 1})
    channel.queue_bind(queue, source, "k", {"note": 2})
    channel.queue_unbind(queue, source, "k", {"note": 1})
    assert reached(channel, {"q": queue}, source, "k") == ["q"]
    channel.queue_unbind(queue, source, "k", {"note": 2})


def bound_to_what_is_not_there(case):
    connection = case.connection()
    queue = case.queue(connection.channel())
    absent = case.name("absent")
    refused(404, lambda: connection.channel().queue_bind(queue, absent, "k"), absent)
    refused(404, lambda: connection.channel().queue_bind(absent, "amq.direct", "k"), absent)
    refused(404, lambda: connection.channel().exchange_bind("amq.direct", absent, "k"), absent)
    refused(404, lambda: connection.channel().exchange_bind(absent, "amq.direct", "k"), absent)


def exchange_to_exchange(case):
    channel = case.channel()
    first, second, third = (exchange(case, channel, kind, kind) for kind in ("topic", "direct", "fanout"))
    queues = {name: case.queue(channel, name) for name in "ab"}
    channel.exchange_bind(second, first, "a.#")
    channel.exchange_bind(third, second, "a.b")
    channel.queue_bind(queues["a"], second, "a.b")
    channel.queue_bind(queues["a"], third, "")
    channel.queue_bind(queues["b"], third, "")
    assert reached(channel, queues, first, "a.b") == ["a", "b"]
    assert reached(channel, queues, first, "a.c") == []
    channel.exchange_unbind(third, second, "a.b")
    channel.queue_bind(queues["b"], first, "x")
    assert reached(channel, queues, first, "a.b") == ["a"]
    assert reached(channel, queues, first, "x") == ["b"]


def a_circle_of_exchanges(case):
    channel = case.channel()
    one, two = exchange(case, channel, "fanout", "one"), exchange(case, channel, "fanout", "two")
    queue = case.queue(channel)
    channel.exchange_bind(two, one)
    channel.exchange_bind(one, two)
    channel.queue_bind(queue, two)
    assert reached(channel, {"q": queue}, one, "k") == ["q"]


def alternate(case):
    channel = case.channel()
    last = exchange(case, channel, "fanout", "last")
    queue, spill = case.queue(channel), case.queue(channel, "spill")
    channel.queue_bind(spill, last)
    middle = exchange(case, channel, "direct", "middle", auto_delete=False, arguments={"alternate-exchange": last})
    first = exchange(case, channel, "direct", "first", arguments={"alternate-exchange": middle})
    channel.queue_bind(queue, first, "k")
    queues = {"queue": queue, "spill": spill}
    assert reached(channel, queues, first, "k") == ["queue"]
    assert reached(channel, queues, first, "other") == ["spill"]
    channel.basic_publish(first, "other", b"routed", mandatory=True)
    assert bodies(channel, spill, 1) == ["routed"]
    channel.queue_unbind(spill, last)
    try:
        channel.basic_publish(middle, "other", b"nowhere", mandatory=True)
    except UnroutableError:
        pass
    else:
        raise AssertionError("it was not returned")
    channel.exchange_delete(middle)


def an_alternate_that_is_not_there(case):
    channel = case.channel()
    source = exchange(case, channel, "direct", auto_delete=False, arguments={"alternate-exchange": case.name("absent")})
    publish(channel, "k", "lost", exchange=source)
    channel.exchange_delete(source)


def consistent_hash(case):
    """Each key goes to one queue, always the same; the share of a queue is its binding's weight."""
    channel = case.channel()
    source = exchange(case, channel, "x-consistent-hash")
    queues = [case.queue(channel, name) for name in "abc"]
    for queue, weight in zip(queues, ("1", "1", "2")):
        channel.queue_bind(queue, source, weight)
    for key in range(400):
        publish(channel, f"key-{key}", key, exchange=source)
    shares = [ready(channel, queue)[0] for queue in queues]
    assert sum(shares) == 400 and min(shares) > 40 and shares[2] > max(shares[:2]), shares
    before = [set(bodies(channel, queue)) for queue in queues]
    for key in range(400):
        publish(channel, f"key-{key}", key, exchange=source)
    assert [set(bodies(channel, queue)) for queue in queues] == before


CASES = [
    there_from_the_beginning,
    default,
    direct,
    fanout,
    topic,
    headers,
    headers_with_x,
    declared_otherwise,
    refused_declarations,
    deleted,
    a_queue_takes_its_bindings_along,
    goes_with_its_last_binding,
    bound_twice,
    bound_with_other_arguments,
    bound_to_what_is_not_there,
    exchange_to_exchange,
    a_circle_of_exchanges,
    alternate,
    an_alternate_that_is_not_there,
    consistent_hash,
]
