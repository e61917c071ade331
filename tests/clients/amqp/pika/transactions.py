"""Transactions of a channel: what is published and acknowledged takes effect together, or not at all."""

import pika
from client import bodies, empty, get, publish, ready, refused
from amqp_wire import Raw


def committed(case):
    connection = case.connection()
    channel, other = connection.channel(), connection.channel()
    queue = case.queue(channel)
    channel.tx_select()
    publish(channel, queue, 1, 2)
    assert ready(other, queue)[0] == 0
    channel.tx_commit()
    assert bodies(other, queue, 2) == ["1", "2"]
    publish(channel, queue, 3)
    channel.tx_commit()
    channel.tx_commit()
    assert bodies(other, queue, 1) == ["3"]


def rolled_back(case):
    connection = case.connection()
    channel, other = connection.channel(), connection.channel()
    queue = case.queue(channel)
    channel.tx_select()
    publish(channel, queue, 1)
    channel.tx_rollback()
    channel.tx_commit()
    empty(other, queue)
    publish(channel, queue, 2)
    channel.close()
    empty(other, queue)


def acknowledgements(case):
    connection = case.connection()
    channel, other = connection.channel(), case.channel(connection)
    queue = case.queue(channel)
    publish(other, queue, *range(6))
    channel.tx_select()
    tags = [get(channel, queue)[0].delivery_tag for _ in range(6)]
    channel.basic_ack(tags[0])
    channel.tx_rollback()
    # it is out as before, and may be acknowledged again
    assert ready(other, queue)[0] == 0
    channel.basic_ack(tags[1], multiple=True)
    channel.basic_reject(tags[2], requeue=True)
    channel.basic_nack(tags[3], requeue=False)
    assert ready(other, queue)[0] == 0
    channel.tx_commit()
    assert bodies(other, queue, 1) == ["2"]
    channel.close()
    assert bodies(other, queue, 2) == ["4", "5"]
    empty(other, queue)


def both_at_once(case):
    """What one queue gives and another takes."""
    connection = case.connection()
    channel, other = connection.channel(), case.channel(connection)
    source, target = case.queue(channel, "source"), case.queue(channel, "target")
    publish(other, source, *range(20))
    channel.tx_select()
    for _ in range(20):
        method, _properties, body = get(channel, source)
        publish(channel, target, body.decode())
        channel.basic_ack(method.delivery_tag)
    assert (ready(other, source)[0], ready(other, target)[0]) == (0, 0)
    channel.tx_commit()
    assert bodies(other, target, 20) == [str(n) for n in range(20)]
    channel.close()
    empty(other, source)


def returned_before_the_commit_is_answered(case):
    raw = Raw().log_in()
    channel = raw.open_channel(1)
    channel.call(pika.spec.Tx.Select(), pika.spec.Tx.SelectOk)
    channel.publish("", case.name("nobody"), b"back", mandatory=True)
    channel.write(pika.spec.Tx.Commit())
    back = channel.expect(pika.spec.Basic.Return)
    assert back.reply_code == 312
    raw.frame(), raw.frame()
    channel.expect(pika.spec.Tx.CommitOk)
    raw.close()


def in_the_wrong_place(case):
    connection = case.connection()
    for ask in (lambda c: c.tx_commit(), lambda c: c.tx_rollback()):
        refused(406, lambda ask=ask: ask(connection.channel()), "not transactional")
    channel = connection.channel()
    channel.tx_select()
    channel.tx_select()
    refused(406, lambda: channel.confirm_delivery(), "confirm")
    channel = case.channel(connection)
    refused(406, lambda: channel.tx_select(), "tx")


def a_failure_takes_all_along(case):
    """What was published before a channel error in a transaction is not seen."""
    connection = case.connection()
    channel, other = connection.channel(), connection.channel()
    queue = case.queue(other)
    channel.tx_select()
    publish(channel, queue, 1)
    channel.basic_publish(case.name("absent"), "k", b"x")
    refused(404, lambda: channel.tx_commit(), case.name("absent"))
    empty(other, queue)


CASES = [
    committed,
    rolled_back,
    acknowledgements,
    both_at_once,
    returned_before_the_commit_is_answered,
    in_the_wrong_place,
    a_failure_takes_all_along,
]
