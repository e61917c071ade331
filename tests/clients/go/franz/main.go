// Command franz tries franz-go's client (kgo) and its admin client (kadm) against the broker at BOOTSTRAP.
package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sabir.test/clients/cases"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func main() {
	cases.Run("franz-topics", time.Minute, topics)
	cases.Run("franz-topics-refused", time.Minute, topicsRefused)
	cases.Run("franz-configs", time.Minute, configs)
	cases.Run("franz-offsets", time.Minute, offsets)
	cases.Run("franz-delete-records", time.Minute, deleteRecords)
	cases.Run("franz-broker", time.Minute, broker)
	cases.Run("franz-codecs", time.Minute, codecs)
	cases.Run("franz-acks", time.Minute, acks)
	cases.Run("franz-large-records", time.Minute, largeRecords)
	cases.Run("franz-topics-by-pattern", time.Minute, byPattern)
	cases.Run("franz-group-offsets", time.Minute, groupOffsets)
	cases.Run("franz-group-cooperative-sticky", time.Minute, cooperative)
	cases.Run("franz-group-static-member", time.Minute, static)
	cases.Run("franz-deleted-topic", time.Minute, deletedTopic)
	cases.Run("franz-made-again-topic", time.Minute, madeAgainTopic)
	cases.End()
}

// client gives a client that ends with its case.
func client(ctx context.Context, options ...kgo.Opt) *kgo.Client {
	cl := cases.Must(kgo.NewClient(append(options, kgo.SeedBrokers(cases.Bootstrap))...))
	context.AfterFunc(ctx, cl.CloseAllowingRebalance)
	return cl
}

func admin(ctx context.Context) *kadm.Client { return kadm.NewClient(client(ctx)) }

// topic makes one.
func topic(ctx context.Context, adm *kadm.Client, name string, partitions int32) string {
	name = cases.Named(name)
	_, err := adm.CreateTopic(ctx, partitions, -1, nil, name)
	cases.Ok(err, "creating "+name)
	return name
}

// write sends count records to a partition, a batch each and a second apart, the first at `from`.
func write(ctx context.Context, topic string, partition int32, count int, from time.Time) {
	cl := client(ctx, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	for i := range count {
		record := &kgo.Record{
			Topic: topic, Partition: partition, Timestamp: from.Add(time.Duration(i) * time.Second), Value: fmt.Appendf(nil, "v%d", i),
		}
		cases.Ok(cl.ProduceSync(ctx, record).FirstErr(), "producing")
	}
	cl.Close()
}

func refused(err error, expected *kerr.Error, what string) {
	if !errors.Is(err, expected) {
		cases.Fail("%s: %v, not %s", what, err, expected.Message)
	}
}

func topics(ctx context.Context) {
	adm := admin(ctx)
	name := cases.Named("franz-made")
	made := cases.Must(adm.CreateTopic(ctx, 3, 1, map[string]*string{"retention.ms": kadm.StringPtr("123456789")}, name))
	cases.Same(made.NumPartitions, int32(3), "partitions, as created")
	cases.Same(made.ReplicationFactor, int16(1), "replicas, as created")
	cases.Same(*made.Configs["retention.ms"].Value, "123456789", "a config, as created")
	listed := cases.Must(adm.ListTopics(ctx, name))[name]
	cases.Ok(listed.Err, "listing it")
	cases.Same(listed.ID, made.ID, "its id")
	cases.Same(len(listed.Partitions), 3, "its partitions")
	for _, partition := range listed.Partitions {
		cases.Same(partition.Replicas, []int32{partition.Leader}, "its replicas")
		cases.Same(partition.ISR, []int32{partition.Leader}, "those in sync")
	}
	cases.Ok(cases.Must(adm.CreatePartitions(ctx, 2, name)).Error(), "two more partitions")
	cases.Ok(cases.Must(adm.UpdatePartitions(ctx, 7, name)).Error(), "seven partitions")
	// a Kafka that has answered may not know it yet
	cases.Until(ctx, "it has seven partitions", func() bool { return len(cases.Must(adm.ListTopics(ctx))[name].Partitions) == 7 })

	dry := cases.Named("franz-dry")
	cases.Ok(cases.Must(adm.ValidateCreateTopics(ctx, 2, -1, nil, dry)).Error(), "a dry run")
	cases.Same(cases.Must(adm.ListTopics(ctx)).Has(dry), false, "made by a dry run")
	cases.Ok(cases.Must(adm.DeleteTopics(ctx, name)).Error(), "deleting it")
	cases.Until(ctx, "it is gone", func() bool { return !cases.Must(adm.ListTopics(ctx)).Has(name) })
}

func topicsRefused(ctx context.Context) {
	adm := admin(ctx)
	name := topic(ctx, adm, "franz-refused", 3)
	create := func(name string, partitions int32, replicas int16, configs map[string]*string) error {
		_, err := adm.CreateTopic(ctx, partitions, replicas, configs, name)
		return err
	}
	refused(create(name, 1, 1, nil), kerr.TopicAlreadyExists, "the same name again")
	refused(create(cases.Named("two"), 1, 2, nil), kerr.InvalidReplicationFactor, "two replicas")
	refused(create(cases.Named("none"), 0, 1, nil), kerr.InvalidPartitions, "no partition")
	refused(create(cases.Named("odd")+"/", 1, 1, nil), kerr.InvalidTopicException, "a name that cannot be")
	refused(create(cases.Named("value"), 1, 1, map[string]*string{"retention.ms": kadm.StringPtr("soon")}), kerr.InvalidConfig, "a value")
	refused(create(cases.Named("key"), 1, 1, map[string]*string{"no.such": kadm.StringPtr("1")}), kerr.InvalidConfig, "a setting")
	refused(cases.Must(adm.UpdatePartitions(ctx, 2, name))[name].Err, kerr.InvalidPartitions, "fewer partitions")
	nobody := cases.Named("nobody")
	refused(cases.Must(adm.UpdatePartitions(ctx, 2, nobody))[nobody].Err, kerr.UnknownTopicOrPartition, "partitions of nothing")
	refused(cases.Must(adm.DeleteTopics(ctx, nobody))[nobody].Err, kerr.UnknownTopicOrPartition, "deleting nothing")
	refused(cases.Must(adm.ListTopics(ctx, nobody))[nobody].Err, kerr.UnknownTopicOrPartition, "listing nothing")
}

func configs(ctx context.Context) {
	adm := admin(ctx)
	name := topic(ctx, adm, "franz-configs", 1)
	set := func(op kadm.IncrementalOp, key, value string) kadm.AlterConfig {
		return kadm.AlterConfig{Op: op, Name: key, Value: kadm.StringPtr(value)}
	}
	alter := func(changes ...kadm.AlterConfig) error {
		changed := cases.Must(adm.AlterTopicConfigs(ctx, changes, name))
		return changed[0].Err
	}
	shown := func() map[string]string { return overrides(ctx, adm, name) }
	cases.Soon(shown, map[string]string{}, "at first")
	cases.Ok(alter(set(kadm.SetConfig, "retention.ms", "777777"), set(kadm.SetConfig, "max.message.bytes", "2000000")), "setting two")
	cases.Soon(shown, map[string]string{"retention.ms": "777777", "max.message.bytes": "2000000"}, "two are set")
	cases.Ok(alter(kadm.AlterConfig{Op: kadm.DeleteConfig, Name: "retention.ms"}), "deleting one")
	cases.Soon(shown, map[string]string{"max.message.bytes": "2000000"}, "one is deleted")
	refused(alter(set(kadm.SetConfig, "retention.ms", "soon")), kerr.InvalidConfig, "a value")
	refused(alter(set(kadm.SetConfig, "no.such", "1")), kerr.InvalidConfig, "a setting")
	dry := cases.Must(adm.ValidateAlterTopicConfigs(ctx, []kadm.AlterConfig{set(kadm.SetConfig, "retention.ms", "5000")}, name))
	cases.Ok(dry[0].Err, "a dry run")
	// the older call says all that shall be set: what it leaves out is deleted
	state := cases.Must(adm.AlterTopicConfigsState(ctx, []kadm.AlterConfig{{Name: "retention.bytes", Value: kadm.StringPtr("123456789")}}, name))
	cases.Ok(state[0].Err, "setting the state")
	cases.Soon(shown, map[string]string{"retention.bytes": "123456789"}, "the state")
	all := cases.Must(cases.Must(adm.DescribeTopicConfigs(ctx, name)).On(name, nil))
	if len(all.Configs) < 20 {
		cases.Fail("only %d settings are shown", len(all.Configs))
	}
	nobody := cases.Named("nobody")
	_, err := cases.Must(adm.DescribeTopicConfigs(ctx, nobody)).On(nobody, func(r *kadm.ResourceConfig) error { return r.Err })
	refused(err, kerr.UnknownTopicOrPartition, "configs of nothing")
}

// overrides are the settings that were made for the topic.
func overrides(ctx context.Context, adm *kadm.Client, name string) map[string]string {
	described := cases.Must(cases.Must(adm.DescribeTopicConfigs(ctx, name)).On(name, nil))
	cases.Ok(described.Err, "describing configs")
	found := map[string]string{}
	for _, config := range described.Configs {
		if config.Source.String() == "DYNAMIC_TOPIC_CONFIG" {
			found[config.Key] = config.MaybeValue()
		}
	}
	return found
}

func offsets(ctx context.Context) {
	adm := admin(ctx)
	name := topic(ctx, adm, "franz-offsets", 2)
	began := time.Now().Add(-time.Hour).Truncate(time.Second)
	write(ctx, name, 0, 10, began)
	at := func(listed kadm.ListedOffsets, err error) [2]int64 {
		cases.Ok(err, "listing offsets")
		cases.Ok(listed.Error(), "a listed offset")
		return [2]int64{listed[name][0].Offset, listed[name][1].Offset}
	}
	cases.Same(at(adm.ListStartOffsets(ctx, name)), [2]int64{0, 0}, "the earliest")
	cases.Same(at(adm.ListEndOffsets(ctx, name)), [2]int64{10, 0}, "the latest")
	cases.Same(at(adm.ListCommittedOffsets(ctx, name)), [2]int64{10, 0}, "the latest committed")
	cases.Same(at(adm.ListMaxTimestampOffsets(ctx, name)), [2]int64{9, -1}, "the greatest timestamp")
	cases.Same(at(adm.ListOffsetsAfterMilli(ctx, began.UnixMilli()+2500, name)), [2]int64{3, 0}, "by time")
	cases.Same(at(adm.ListOffsetsAfterMilli(ctx, time.Now().UnixMilli(), name)), [2]int64{10, 0}, "by a time after the last")

	var asked kadm.OffsetForLeaderEpochRequest
	listed := cases.Must(adm.ListEndOffsets(ctx, name))
	asked.Add(name, 0, listed[name][0].LeaderEpoch)
	epoch := cases.Must(adm.OffetForLeaderEpoch(ctx, asked))[name][0]
	cases.Ok(epoch.Err, "the end of the epoch")
	cases.Same(epoch.EndOffset, int64(10), "the end of the epoch")
}

func deleteRecords(ctx context.Context) {
	adm := admin(ctx)
	name := topic(ctx, adm, "franz-deleted", 2)
	write(ctx, name, 0, 10, time.Now())
	var upTo kadm.Offsets
	upTo.AddOffset(name, 0, 6, -1)
	upTo.AddOffset(name, 1, 0, -1)
	deleted := cases.Must(adm.DeleteRecords(ctx, upTo))
	cases.Ok(deleted.Error(), "deleting")
	cases.Same(deleted[name][0].LowWatermark, int64(6), "the low watermark")
	cases.Same(cases.Must(adm.ListStartOffsets(ctx, name))[name][0].Offset, int64(6), "the earliest")
	var beyond kadm.Offsets
	beyond.AddOffset(name, 0, 11, -1)
	refused(cases.Must(adm.DeleteRecords(ctx, beyond))[name][0].Err, kerr.OffsetOutOfRange, "beyond the end")
	// who was to go on below it begins where the records do
	cl := client(ctx, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: {0: kgo.NewOffset().At(2)}}), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	var found []int64
	for len(found) < 4 {
		fetches := cl.PollFetches(ctx)
		cases.Ok(ctx.Err(), "reading the rest")
		fetches.EachRecord(func(record *kgo.Record) { found = append(found, record.Offset) })
	}
	cases.Same(found, []int64{6, 7, 8, 9}, "the rest")
}

func broker(ctx context.Context) {
	adm := admin(ctx)
	metadata := cases.Must(adm.BrokerMetadata(ctx))
	cases.Same(len(metadata.Brokers), 1, "brokers")
	cases.Same(fmt.Sprintf("%s:%d", metadata.Brokers[0].Host, metadata.Brokers[0].Port), cases.Bootstrap, "its address")
	cases.Same(len(metadata.Cluster), 22, "the length of the cluster's id")
	id := metadata.Brokers[0].NodeID
	versions := cases.Must(adm.ApiVersions(ctx))[id]
	cases.Ok(versions.Err, "its versions")
	for key, newest := range map[int16]int16{0: 13, 1: 18, 2: 11, 3: 13, 8: 10, 11: 9, 19: 7} {
		found, exists := versions.KeyMaxVersion(key)
		cases.Same(found, newest, fmt.Sprintf("the newest version of API %d (listed: %t)", key, exists))
	}
	configs := cases.Must(cases.Must(adm.DescribeBrokerConfigs(ctx, id)).On(fmt.Sprint(id), nil))
	cases.Ok(configs.Err, "its configs")
	if len(configs.Configs) < 10 {
		cases.Fail("only %d configs of the broker are shown", len(configs.Configs))
	}
	name := topic(ctx, adm, "franz-size", 2)
	write(ctx, name, 1, 10, time.Now())
	directories := cases.Must(adm.DescribeAllLogDirs(ctx, nil))
	size := int64(0)
	directories.Each(func(directory kadm.DescribedLogDir) {
		for _, partition := range directory.Topics[name] {
			size += partition.Size
		}
	})
	if size < 10*61 {
		cases.Fail("ten batches take only %d bytes", size)
	}
}

func codecs(ctx context.Context) {
	adm := admin(ctx)
	name := topic(ctx, adm, "franz-codecs", 1)
	all := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	expected := map[string]int{}
	for codec, compression := range all {
		cl := client(ctx, kgo.DefaultProduceTopic(name), kgo.ProducerBatchCompression(compression), kgo.ProducerLinger(5*time.Millisecond))
		for i := range 100 {
			value := fmt.Sprintf("%s %d and what compresses well, well, well, well, well", codec, i)
			record := kgo.KeyStringRecord(codec, value)
			record.Headers = []kgo.RecordHeader{{Key: "same", Value: []byte("1")}, {Key: "same", Value: nil}}
			cl.Produce(ctx, record, nil)
			expected[value]++
		}
		cases.Ok(cl.Flush(ctx), "flushing "+codec)
	}
	found := map[string]int{}
	cl := client(ctx, kgo.ConsumeTopics(name), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for read := 0; read < 100*len(all); {
		fetches := cl.PollFetches(ctx)
		cases.Ok(fetches.Err(), "fetching")
		fetches.EachRecord(func(record *kgo.Record) {
			cases.Same(record.Offset, int64(read), "the offset")
			cases.Same(len(record.Headers), 2, "headers")
			cases.Same(string(record.Key), string(record.Value[:len(record.Key)]), "key and value")
			found[string(record.Value)]++
			read++
		})
	}
	cases.Same(found, expected, "values")
}

// readAll reads so many records from the start of what the options name, and gives their values.
func readAll(ctx context.Context, count int, options ...kgo.Opt) []string {
	cl := client(ctx, append(options, kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	defer cl.Close()
	var values []string
	for len(values) < count {
		fetches := cl.PollFetches(ctx)
		cases.Ok(fetches.Err(), "fetching")
		fetches.EachRecord(func(record *kgo.Record) { values = append(values, string(record.Value)) })
	}
	return values
}

// acks: a producer that does not wait, one that waits for the leader, and one that is not idempotent; into a topic made by asking for it.
func acks(ctx context.Context) {
	name := cases.Named("franz-acks")
	kinds := [][]kgo.Opt{
		{kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite()},
		{kgo.RequiredAcks(kgo.AllISRAcks()), kgo.DisableIdempotentWrite()},
		{kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite()},
	}
	var expected []string
	for i, kind := range kinds {
		cl := client(ctx, append(kind, kgo.DefaultProduceTopic(name), kgo.AllowAutoTopicCreation())...)
		for n := range 20 {
			value := fmt.Sprint(i, "-", n)
			cases.Ok(cl.ProduceSync(ctx, kgo.StringRecord(value)).FirstErr(), "producing "+value)
			expected = append(expected, value)
		}
		cl.Close()
	}
	cases.Same(readAll(ctx, len(expected), kgo.ConsumeTopics(name)), expected, "what is read")
}

// largeRecords are greater than all that a consumer wants to fetch at once: it gets one batch at a time nevertheless.
func largeRecords(ctx context.Context) {
	adm := admin(ctx)
	name := topic(ctx, adm, "franz-large", 1)
	cl := client(ctx, kgo.DefaultProduceTopic(name), kgo.ProducerBatchCompression(kgo.NoCompression()))
	var expected []string
	for i := range 8 {
		value := strings.Repeat(fmt.Sprint(i), 900_000)
		cases.Ok(cl.ProduceSync(ctx, kgo.StringRecord(value)).FirstErr(), "producing")
		expected = append(expected, value)
	}
	narrow := []kgo.Opt{kgo.ConsumeTopics(name), kgo.FetchMaxBytes(1000), kgo.FetchMaxPartitionBytes(1000)}
	if !slices.Equal(readAll(ctx, 8, narrow...), expected) {
		cases.Fail("what is read is not what was written")
	}
	// the client's own limit aside, the topic has one
	big := client(ctx, kgo.DefaultProduceTopic(name), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerBatchMaxBytes(8_000_000))
	refused(big.ProduceSync(ctx, kgo.StringRecord(strings.Repeat("x", 2_000_000))).FirstErr(), kerr.MessageTooLarge, "two megabytes")
}

// byPattern: a consumer of all topics with such a name finds one that is made later.
func byPattern(ctx context.Context) {
	adm := admin(ctx)
	produce := func(name string) {
		cl := client(ctx, kgo.DefaultProduceTopic(name))
		cases.Ok(cl.ProduceSync(ctx, kgo.StringRecord(name)).FirstErr(), "producing")
		cl.Close()
	}
	first := topic(ctx, adm, "franz-pattern-a", 1)
	other := topic(ctx, adm, "franz-else", 1)
	produce(first)
	produce(other)
	cl := client(ctx, kgo.ConsumeRegex(), kgo.ConsumeTopics("^franz-pattern-.*"+cases.Named("")+"$"), kgo.ConsumerGroup(cases.Named("franz-pattern")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(100*time.Millisecond), kgo.MetadataMaxAge(500*time.Millisecond))
	next := func() (value string) {
		for value == "" {
			fetches := cl.PollFetches(ctx)
			cases.Ok(fetches.Err(), "fetching")
			fetches.EachRecord(func(record *kgo.Record) { value += string(record.Value) })
		}
		return value
	}
	cases.Same(next(), first, "the first topic")
	second := topic(ctx, adm, "franz-pattern-b", 1)
	produce(second)
	cases.Same(next(), second, "the topic that was made later")
}

func groupOffsets(ctx context.Context) {
	adm := admin(ctx)
	name, group := topic(ctx, adm, "franz-lag", 2), cases.Named("franz-lag")
	write(ctx, name, 0, 10, time.Now())
	write(ctx, name, 1, 4, time.Now())
	var committed kadm.Offsets
	committed.Add(kadm.Offset{Topic: name, Partition: 0, At: 3, LeaderEpoch: -1, Metadata: "my note"})
	committed.AddOffset(name, 1, 4, -1)
	cases.Ok(adm.CommitAllOffsets(ctx, group, committed), "committing")
	found := cases.Must(adm.FetchOffsets(ctx, group))
	cases.Same(found[name][0].At, int64(3), "the committed offset")
	cases.Same(found[name][0].Metadata, "my note", "what was noted with it")
	lag := cases.Must(adm.Lag(ctx, group))[group]
	cases.Ok(lag.Error(), "lag")
	cases.Same(lag.State, "Empty", "the group's state")
	cases.Same(lag.Lag.Total(), int64(7), "its lag")
	cases.Same(cases.Must(adm.ListGroups(ctx, "Empty")).Groups()[0] != "", true, "listed")

	var set kadm.TopicsSet
	set.Add(name, 1)
	cases.Ok(cases.Must(adm.DeleteOffsets(ctx, group, set)).Error(), "deleting an offset")
	_, still := cases.Must(adm.FetchOffsets(ctx, group)).Lookup(name, 1)
	cases.Same(still, false, "there after it was deleted")
	_, err := adm.DeleteGroup(ctx, group)
	cases.Ok(err, "deleting the group")
	_, err = adm.DeleteGroup(ctx, group)
	refused(err, kerr.GroupIDNotFound, "deleting it again")
	cases.Same(len(cases.Must(adm.FetchOffsets(ctx, group))), 0, "what it has committed")
}

// member is a consumer of a group with what it has and has read.
type member struct {
	client *kgo.Client
	mutex  sync.Mutex
	owns   map[int32]bool
	// How often partitions were taken away, and how often given.
	revoked, assigned int
	read              map[string]int
	failed            error
}

func join(ctx context.Context, group, topic string, options ...kgo.Opt) *member {
	m := &member{owns: map[int32]bool{}, read: map[string]int{}}
	change := func(has bool, count *int) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			m.mutex.Lock()
			defer m.mutex.Unlock()
			for _, partition := range partitions[topic] {
				if has {
					m.owns[partition] = true
				} else {
					delete(m.owns, partition)
				}
				*count++
			}
		}
	}
	m.client = client(ctx, append(options,
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(200*time.Millisecond),
		kgo.OnPartitionsAssigned(change(true, &m.assigned)), kgo.OnPartitionsRevoked(change(false, &m.revoked)),
		kgo.OnPartitionsLost(change(false, &m.revoked)))...)
	go m.poll(ctx)
	return m
}

func (m *member) poll(ctx context.Context) {
	for {
		fetches := m.client.PollFetches(ctx)
		if fetches.IsClientClosed() || ctx.Err() != nil {
			return
		}
		m.mutex.Lock()
		m.failed = errors.Join(m.failed, fetches.Err())
		fetches.EachRecord(func(record *kgo.Record) { m.read[fmt.Sprint(record.Partition, "-", record.Offset)]++ })
		m.mutex.Unlock()
	}
}

func (m *member) owned() []int32 {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	var all []int32
	for partition := range m.owns {
		all = append(all, partition)
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	return all
}

// shared says whether the members have so many partitions each, and all of them together every one.
func shared(partitions, each int, members ...*member) func() bool {
	return func() bool {
		all := map[int32]bool{}
		for _, m := range members {
			owned := m.owned()
			if len(owned) != each {
				return false
			}
			for _, partition := range owned {
				all[partition] = true
			}
		}
		return len(all) == partitions
	}
}

func cooperative(ctx context.Context) {
	adm := admin(ctx)
	name, group := topic(ctx, adm, "franz-group", 6), cases.Named("franz-group")
	feed := client(ctx, kgo.DefaultProduceTopic(name), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	produce := func(count int) {
		for i := range count {
			feed.Produce(ctx, kgo.StringRecord(fmt.Sprint(i)), nil)
		}
		cases.Ok(feed.Flush(ctx), "producing")
	}
	produce(600)
	first, second := join(ctx, group, name), join(ctx, group, name)
	cases.Until(ctx, "two share six partitions", shared(6, 3, first, second))
	before := first.revoked + second.revoked
	third := join(ctx, group, name)
	cases.Until(ctx, "three share them", shared(6, 2, first, second, third))
	cases.Same(first.revoked+second.revoked-before, 2, "partitions given back for a third member")

	described := cases.Must(adm.DescribeGroups(ctx, group))[group]
	cases.Ok(described.Err, "describing the group")
	cases.Same(described.Protocol, "cooperative-sticky", "its strategy")
	cases.Same(len(described.Members), 3, "its members")
	assigned := described.AssignedPartitions()
	cases.Same(len(assigned[name]), 6, "its partitions")

	produce(600)
	members := []*member{first, second, third}
	cases.Until(ctx, "all is read", func() bool { return len(readBy(members)) == 1200 })
	for _, m := range members {
		cases.Ok(m.failed, "fetching")
		cases.Ok(m.client.CommitUncommittedOffsets(ctx), "committing")
	}
	lag := cases.Must(adm.Lag(ctx, group))[group]
	cases.Ok(lag.Error(), "lag")
	cases.Same(lag.Lag.Total(), int64(0), "its lag")
	third.client.Close()
	cases.Until(ctx, "two share them again", shared(6, 3, first, second))
	refused(cases.Must(adm.DeleteGroups(ctx, group))[group].Err, kerr.NonEmptyGroup, "deleting a running group")
	first.client.Close()
	second.client.Close()
	_, err := adm.DeleteGroup(ctx, group)
	cases.Ok(err, "deleting the group that all have left")
}

func readBy(members []*member) map[string]int {
	all := map[string]int{}
	for _, m := range members {
		m.mutex.Lock()
		for record, times := range m.read {
			all[record] += times
		}
		m.mutex.Unlock()
	}
	return all
}

// static: a member with an instance id comes back as itself, and the other never notices.
func static(ctx context.Context) {
	adm := admin(ctx)
	name, group := topic(ctx, adm, "franz-static", 4), cases.Named("franz-static")
	first := join(ctx, group, name, kgo.InstanceID("first"))
	second := join(ctx, group, name, kgo.InstanceID("second"))
	cases.Until(ctx, "two share four partitions", shared(4, 2, first, second))
	had, disturbed := second.owned(), first.assigned+first.revoked
	// with an instance id, closing is no leaving
	second.client.Close()
	back := join(ctx, group, name, kgo.InstanceID("second"))
	cases.Until(ctx, "it is back", shared(4, 2, first, back))
	cases.Same(back.owned(), had, "what it has")
	cases.Same(first.assigned+first.revoked, disturbed, "what the other has noticed")
	left := cases.Must(adm.LeaveGroup(ctx, kadm.LeaveGroup(group).Reason("by hand").InstanceIDs("second")))
	cases.Ok(left.Error(), "making it leave")
}

// fetches counts a client's requests to fetch.
type fetches struct{ atomic.Int64 }

func (f *fetches) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	if key == int16(kmsg.Fetch) {
		f.Add(1)
	}
}

// A topic that is deleted under a consumer does not have it spin, whether it reads another one beside it or not.
func deletedTopic(ctx context.Context) {
	readsOnAfter(ctx, "deleted", func(*kadm.Client, string) {})
}

// Nor does one that is made again at once.
func madeAgainTopic(ctx context.Context) {
	readsOnAfter(ctx, "made-again", func(adm *kadm.Client, name string) {
		cases.Must(adm.CreateTopic(ctx, 1, 1, nil, name))
	})
}

func readsOnAfter(ctx context.Context, how string, then func(adm *kadm.Client, name string)) {
	adm := admin(ctx)
	other := topic(ctx, adm, how+"-other", 1)
	for _, beside := range [][]string{{other}, {}} {
		gone := topic(ctx, adm, fmt.Sprint(how, "-", len(beside)), 1)
		counted := &fetches{}
		wanted := make(map[string]map[int32]kgo.Offset)
		for _, name := range append(beside, gone) {
			wanted[name] = map[int32]kgo.Offset{0: kgo.NewOffset().AtStart()}
		}
		reader := client(ctx, kgo.ConsumePartitions(wanted), kgo.WithHooks(counted), kgo.FetchMaxWait(500*time.Millisecond))
		poll(ctx, reader, 2*time.Second)
		cases.Must(adm.DeleteTopics(ctx, gone))
		then(adm, gone)
		before := counted.Load()
		poll(ctx, reader, 5*time.Second)
		found := counted.Load() - before
		fmt.Println("fetches,", how, "with", len(beside), "others:", found)
		if found > 30 {
			cases.Fail("%d fetches in 5 s, with %d other topics", found, len(beside))
		}
	}
}

func poll(ctx context.Context, reader *kgo.Client, how time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, how)
	defer cancel()
	for ctx.Err() == nil {
		reader.PollFetches(ctx)
	}
}
