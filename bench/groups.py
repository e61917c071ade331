"""A part of bench/scale.py, which runs it: a thousand consumer groups at once, members of classic groups on one event loop, lean enough not to be what is measured."""

import asyncio
import contextlib
import struct
import time

import wire

SESSION_MS, REBALANCE_MS = 30_000, 60_000
REBALANCE_IN_PROGRESS = 27
# Kafka's default.
HEARTBEAT_S = 3.0


class Member:
    """One member: joins, is given its part, and beats; joins anew when it is told that the others do."""

    def __init__(self, address, group):
        host, _, port = address.rpartition(":")
        self.host, self.port, self.group = host, int(port), group
        self.id, self.generation, self.settled_at = "", -1, None
        self.correlation = 0
        self.beating = None

    async def call(self, api, version, body):
        self.correlation += 1
        self.writer.write(wire.frame(api, version, self.correlation, body))
        (size,) = struct.unpack(">i", await self.reader.readexactly(4))
        return (await self.reader.readexactly(size))[4:]

    async def start(self):
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        await self.join()
        self.beating = asyncio.create_task(self.beat())

    async def join(self):
        protocols = wire.array([wire.string("range") + wire.blob(b"")])
        body = wire.string(self.group) + struct.pack(">ii", SESSION_MS, REBALANCE_MS) + wire.string(self.id)
        while True:
            answer = await self.call(wire.JOIN_GROUP, 3, body + wire.string("consumer") + protocols)
            error, generation = struct.unpack_from(">hi", answer, 4)
            assert error == 0, f"JoinGroup answers error {error}"
            at = 10
            _protocol, at = wire.take_string(answer, at)
            leader, at = wire.take_string(answer, at)
            self.id, at = wire.take_string(answer, at)
            body = wire.string(self.group) + struct.pack(">ii", SESSION_MS, REBALANCE_MS) + wire.string(self.id)
            if await self.sync(generation, members(answer, at) if leader == self.id else []):
                return

    async def sync(self, generation, everybody):
        assignments = wire.array([wire.string(member) + wire.blob(b"all of it") for member in everybody])
        body = wire.string(self.group) + struct.pack(">i", generation) + wire.string(self.id) + assignments
        answer = await self.call(wire.SYNC_GROUP, 1, body)
        (error,) = struct.unpack_from(">h", answer, 4)
        if error == REBALANCE_IN_PROGRESS:
            return False
        assert error == 0, f"SyncGroup answers error {error}"
        self.generation, self.settled_at = generation, time.monotonic()
        return True

    async def beat(self):
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            body = wire.string(self.group) + struct.pack(">i", self.generation) + wire.string(self.id)
            (error,) = struct.unpack_from(">h", await self.call(wire.HEARTBEAT, 1, body), 4)
            if error == REBALANCE_IN_PROGRESS:
                await self.join()
            else:
                assert error == 0, f"Heartbeat answers error {error}"

    async def leave(self):
        await self.end()
        await self.call(wire.LEAVE_GROUP, 1, wire.string(self.group) + wire.string(self.id))
        self.writer.close()

    async def end(self):
        self.beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.beating


def members(answer, at):
    """The ids in a JoinGroup answer, from the count on."""
    (count,) = struct.unpack_from(">i", answer, at)
    at += 4
    found = []
    for _ in range(count):
        member, at = wire.take_string(answer, at)
        (size,) = struct.unpack_from(">i", answer, at)
        at += 4 + max(size, 0)
        found.append(member)
    return found


async def settled(groups, after):
    """Waits until both members of each group are in one generation that is newer than `after`."""
    while not all(a.generation == b.generation > after[a.group] for a, b in groups):
        for member in (member for group in groups for member in group):
            if member.beating and member.beating.done():
                member.beating.result()
        await asyncio.sleep(0.02)


async def rebalance(address, count):
    """Seconds until `count` groups of two have formed, and until they have settled after one has left and another has come in each."""
    groups = [(Member(address, f"group-{n}"), Member(address, f"group-{n}")) for n in range(count)]
    began = time.monotonic()
    await asyncio.gather(*(member.start() for group in groups for member in group))
    await settled(groups, dict.fromkeys((a.group for a, _ in groups), -1))
    formed = max(member.settled_at for group in groups for member in group) - began
    # Their heartbeats are spread as those of members that have been there for long.
    await asyncio.sleep(HEARTBEAT_S)

    after = {a.group: a.generation for a, _ in groups}
    changed = [(stays, Member(address, stays.group)) for stays, _ in groups]
    began = time.monotonic()
    await asyncio.gather(*(goes.leave() for _, goes in groups), *(comes.start() for _, comes in changed))
    await settled(changed, after)
    again = max(member.settled_at for group in changed for member in group) - began
    for group in changed:
        for member in group:
            await member.end()
            member.writer.close()
    return formed, again


def run(address, count):
    return asyncio.run(rebalance(address, count))
