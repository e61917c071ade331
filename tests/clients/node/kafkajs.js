// KafkaJS against the broker at BOOTSTRAP.
'use strict'

const assert = require('node:assert/strict')
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = require('kafkajs')
const { run, until } = require('./cases')

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')

const named = (name) => `kafkajs-${name}-${process.env.SALT}`
const kafka = new Kafka({ clientId: 'cases', brokers: [process.env.BOOTSTRAP], logLevel: logLevel.NOTHING })

async function adminOf(closing) {
  const admin = closing(kafka.admin({ retry: { retries: 2, initialRetryTime: 50 } }))
  await admin.connect()
  return admin
}

async function producerOf(closing, options) {
  const producer = closing(kafka.producer(options))
  await producer.connect()
  return producer
}

async function topicOf(admin, name, numPartitions) {
  const topic = named(name)
  assert.equal(await admin.createTopics({ topics: [{ topic, numPartitions }] }), true)
  return topic
}

const values = (from, to) => Array.from({ length: to - from }, (_, i) => ({ value: `v${from + i}` }))

/** The types of an error and of all that it holds: KafkaJS keeps what the broker has said at four different places. */
function typesOf(error) {
  if (!error) return []
  const held = [error.cause, ...(error.errors || []), ...[...(error.groups || []), ...(error.partitions || [])].map((one) => one.error)]
  return [error.type, ...held.flatMap(typesOf)].filter(Boolean)
}

const refused = (promise, type) => assert.rejects(promise, (error) => {
  const all = typesOf(error)
  assert.ok(all.includes(type), `${error.name} ${error.message} (${all}) is not ${type}`)
  return true
})

async function topics(closing) {
  const admin = await adminOf(closing)
  const topic = named('made')
  const asked = { topic, numPartitions: 3, replicationFactor: 1, configEntries: [{ name: 'retention.ms', value: '123456789' }] }
  assert.equal(await admin.createTopics({ validateOnly: true, waitForLeaders: false, topics: [asked] }), true)
  assert.ok(!(await admin.listTopics()).includes(topic), 'made by a dry run')
  assert.equal(await admin.createTopics({ topics: [asked] }), true)
  assert.equal(await admin.createTopics({ topics: [asked] }), false, 'the same name again')
  assert.ok((await admin.listTopics()).includes(topic))
  await admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
  const partitions = async () => (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions
  await until('there are five partitions', async () => (await partitions()).length === 5)
  for (const partition of await partitions()) assert.deepEqual(partition.replicas, [partition.leader])
  await refused(admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] }), 'INVALID_PARTITIONS')
  await refused(admin.createTopics({ topics: [{ topic: named('two'), replicationFactor: 2 }] }), 'INVALID_REPLICATION_FACTOR')
  const cluster = await admin.describeCluster()
  assert.equal(cluster.brokers.length, 1)
  assert.equal(`${cluster.brokers[0].host}:${cluster.brokers[0].port}`, process.env.BOOTSTRAP)
  assert.equal(cluster.clusterId.length, 22)
  await admin.deleteTopics({ topics: [topic] })
  assert.ok(!(await admin.listTopics()).includes(topic), 'there after it was deleted')
  await refused(admin.deleteTopics({ topics: [topic], timeout: 2000 }), 'UNKNOWN_TOPIC_OR_PARTITION')
}

async function configs(closing) {
  const admin = await adminOf(closing)
  const topic = await topicOf(admin, 'configs', 1)
  const resource = { type: ConfigResourceTypes.TOPIC, name: topic }
  await admin.alterConfigs({ resources: [{ ...resource, configEntries: [{ name: 'retention.ms', value: '777777' }] }] })
  const one = await admin.describeConfigs({ includeSynonyms: false, resources: [{ ...resource, configNames: ['retention.ms'] }] })
  assert.deepEqual(one.resources[0].configEntries.map((c) => [c.configName, c.configValue, c.isDefault]), [['retention.ms', '777777', false]])
  const all = await admin.describeConfigs({ includeSynonyms: true, resources: [resource] })
  assert.ok(all.resources[0].configEntries.length >= 20, `only ${all.resources[0].configEntries.length} settings`)
  const wrong = admin.alterConfigs({ resources: [{ ...resource, configEntries: [{ name: 'retention.ms', value: 'soon' }] }] })
  await refused(wrong, 'INVALID_CONFIG')
}

async function offsets(closing) {
  const admin = await adminOf(closing)
  const producer = await producerOf(closing)
  const topic = await topicOf(admin, 'offsets', 2)
  const began = Date.now() - 3_600_000
  for (let i = 0; i < 10; i++) {
    await producer.send({ topic, messages: [{ partition: 0, value: `v${i}`, timestamp: String(began + i * 1000) }] })
  }
  const sorted = (list) => list.sort((a, b) => a.partition - b.partition)
  assert.deepEqual(sorted(await admin.fetchTopicOffsets(topic)), [
    { partition: 0, offset: '10', high: '10', low: '0' }, { partition: 1, offset: '0', high: '0', low: '0' },
  ])
  assert.deepEqual(sorted(await admin.fetchTopicOffsetsByTimestamp(topic, began + 2500)), [
    { partition: 0, offset: '3' }, { partition: 1, offset: '0' },
  ])
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '6' }] })
  assert.equal(sorted(await admin.fetchTopicOffsets(topic))[0].low, '6')
  await refused(admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '11' }] }), 'OFFSET_OUT_OF_RANGE')
}

async function groups(closing) {
  const admin = await adminOf(closing)
  const producer = await producerOf(closing)
  const topic = await topicOf(admin, 'group-offsets', 1)
  const groupId = named('group-offsets')
  await producer.send({ topic, messages: values(0, 10) })
  await admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '3' }] })
  const fetched = async () => (await admin.fetchOffsets({ groupId, topics: [topic] }))[0].partitions.map((p) => p.offset)
  assert.deepEqual(await fetched(), ['3'])
  await admin.resetOffsets({ groupId, topic, earliest: true })
  assert.deepEqual(await fetched(), ['-2'], 'KafkaJS commits the name of the earliest itself')
  assert.ok((await admin.listGroups()).groups.some((g) => g.groupId === groupId))
  const [described] = (await admin.describeGroups([groupId])).groups
  assert.deepEqual([described.state, described.members], ['Empty', []])
  await admin.deleteGroups([groupId])
  await refused(admin.deleteGroups([groupId]), 'GROUP_ID_NOT_FOUND')
  assert.ok(!(await admin.listGroups()).groups.some((g) => g.groupId === groupId), 'there after it was deleted')
}

async function idempotent(closing) {
  const admin = await adminOf(closing)
  const producer = await producerOf(closing, { idempotent: true, maxInFlightRequests: 5 })
  const topic = await topicOf(admin, 'idempotent', 3)
  const sent = []
  for (let i = 0; i < 50; i++) sent.push(producer.send({ topic, acks: -1, messages: values(i * 10, i * 10 + 10) }))
  for (const answer of await Promise.all(sent)) for (const partition of answer) assert.equal(partition.errorCode, 0)
  const high = (await admin.fetchTopicOffsets(topic)).reduce((sum, p) => sum + Number(p.high), 0)
  assert.equal(high, 500)
}

/** Starts a consumer that keeps what it reads. */
async function consumerOf(closing, topic, groupId, each = () => {}) {
  const consumer = closing(kafka.consumer({ groupId, sessionTimeout: 6000, heartbeatInterval: 300, maxWaitTimeInMs: 100 }))
  const read = []
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({
    autoCommitThreshold: 10,
    eachMessage: async ({ partition, message }) => {
      read.push({ partition, offset: Number(message.offset), value: String(message.value), message })
      await each(read)
    },
  })
  return { consumer, read }
}

async function codecs(closing) {
  const admin = await adminOf(closing)
  const producer = await producerOf(closing)
  const topic = await topicOf(admin, 'codecs', 1)
  const all = { None: 0, GZIP: 1, Snappy: 2 }
  for (const [name, compression] of Object.entries(all)) {
    const messages = Array.from({ length: 100 }, (_, i) => ({ key: name, value: `${name} ${i} well, well, well`, headers: { same: ['1', '2'], other: 'x' } }))
    await producer.send({ topic, compression, messages })
  }
  const { read } = await consumerOf(closing, topic, named('codecs'))
  await until('all is read', () => read.length === 300)
  Object.keys(all).forEach((name, n) => {
    for (let i = 0; i < 100; i++) {
      const { offset, value, message } = read[n * 100 + i]
      assert.deepEqual([offset, value, String(message.key)], [n * 100 + i, `${name} ${i} well, well, well`, name])
      assert.deepEqual(message.headers.same.map(String), ['1', '2'])
    }
  })
}

async function group(closing) {
  const admin = await adminOf(closing)
  const producer = await producerOf(closing)
  const topic = await topicOf(admin, 'group', 4)
  const groupId = named('group')
  const spread = (from, to) => values(from, to).map((m, i) => ({ ...m, partition: i % 4 }))
  const state = async () => {
    const [found] = (await admin.describeGroups([groupId])).groups
    return `${found.members.length} ${found.state}`
  }
  const first = await consumerOf(closing, topic, groupId)
  const second = await consumerOf(closing, topic, groupId)
  await until('two are stable', async () => (await state()) === '2 Stable')
  await producer.send({ topic, messages: spread(0, 400) })
  const seen = () => new Set([...first.read, ...second.read].map((r) => r.value)).size
  await until('all is read', () => seen() === 400)
  assert.ok(first.read.length > 0 && second.read.length > 0, `${first.read.length} and ${second.read.length} read`)
  await first.consumer.disconnect()
  await until('one is stable', async () => (await state()) === '1 Stable')
  await producer.send({ topic, messages: spread(400, 800) })
  await until('the rest is read', () => seen() === 800)
  await refused(admin.deleteGroups([groupId]), 'NON_EMPTY_GROUP')
  await second.consumer.disconnect()
  const [committed] = await admin.fetchOffsets({ groupId, topics: [topic] })
  assert.equal(committed.partitions.reduce((sum, p) => sum + Number(p.offset), 0), 800)
  assert.equal(await state(), '0 Empty')
}

async function seek(closing) {
  const admin = await adminOf(closing)
  const producer = await producerOf(closing)
  const topic = await topicOf(admin, 'seek', 1)
  await producer.send({ topic, messages: values(0, 10) })
  const { consumer, read } = await consumerOf(closing, topic, named('seek'))
  await until('all is read', () => read.length === 10)
  consumer.seek({ topic, partition: 0, offset: '7' })
  await until('three are read again', () => read.length === 13)
  assert.deepEqual(read.slice(10).map((r) => r.value), ['v7', 'v8', 'v9'])
  consumer.pause([{ topic }])
  await producer.send({ topic, messages: values(10, 12) })
  await new Promise((resolve) => setTimeout(resolve, 1000))
  assert.equal(read.length, 13, 'read while it was paused')
  consumer.resume([{ topic }])
  await until('it reads on', () => read.length === 15)
  assert.deepEqual(read.slice(13).map((r) => r.value), ['v10', 'v11'])
}

/** Producers that wait for nobody, for the leader and for all. */
async function acks(closing) {
  const admin = await adminOf(closing)
  const producer = await producerOf(closing)
  const topic = await topicOf(admin, 'acks', 1)
  for (const [n, kind] of [1, 0, -1].entries()) await producer.send({ topic, acks: kind, messages: values(n * 5, n * 5 + 5) })
  const { read } = await consumerOf(closing, topic, named('acks'))
  await until('all is read', () => read.length === 15)
  assert.deepEqual(read.map((r) => r.value), values(0, 15).map((m) => m.value))
}

/** A consumer that takes batches and commits what it likes; the next one goes on from there. */
async function batches(closing) {
  const admin = await adminOf(closing)
  const producer = await producerOf(closing)
  const topic = await topicOf(admin, 'batches', 1)
  const groupId = named('batches')
  await producer.send({ topic, messages: values(0, 100) })
  const consumer = closing(kafka.consumer({ groupId, maxWaitTimeInMs: 100 }))
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  let highWatermark, lag
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch }) => {
      ({ highWatermark } = batch)
      lag = batch.offsetLagLow()
    },
  })
  await until('it has a batch', () => highWatermark)
  assert.deepEqual([highWatermark, lag], ['100', '99'])
  await consumer.commitOffsets([{ topic, partition: 0, offset: '40', metadata: 'my note' }])
  await consumer.disconnect()
  const [{ partitions }] = await admin.fetchOffsets({ groupId, topics: [topic] })
  assert.deepEqual(partitions, [{ partition: 0, offset: '40', metadata: 'my note' }])
  const { read } = await consumerOf(closing, topic, groupId)
  await until('the rest is read', () => read.length === 60)
  assert.equal(read[0].value, 'v40')
}

async function main() {
  await run('topics', topics)
  await run('configs', configs)
  await run('offsets', offsets)
  await run('groups', groups)
  await run('idempotent-producer', idempotent)
  await run('codecs', codecs)
  await run('consumer-group', group)
  await run('seek-pause-resume', seek)
  await run('acks', acks)
  await run('batches-and-own-commits', batches)
  console.log('cases\tend')
  process.exit(0)
}

main()
