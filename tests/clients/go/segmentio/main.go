// Command segmentio tries segmentio/kafka-go against the broker at BOOTSTRAP: its Client (one call an API), its Writer and its Reader.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"sabir.test/clients/cases"

	"github.com/segmentio/kafka-go"
)

var (
	client  = &kafka.Client{Addr: kafka.TCP(cases.Bootstrap), Timeout: 20 * time.Second}
	brokers = []string{cases.Bootstrap}
)

func main() {
	cases.Run("segmentio-topics", time.Minute, topics)
	cases.Run("segmentio-topics-by-connection", time.Minute, topicsByConnection)
	cases.Run("segmentio-configs", time.Minute, configs)
	cases.Run("segmentio-leaders-and-reassignments", time.Minute, leadersAndReassignments)
	cases.Run("segmentio-produce-fetch", time.Minute, produceAndFetch)
	cases.Run("segmentio-list-offsets", time.Minute, listOffsets)
	cases.Run("segmentio-offsets-of-group", time.Minute, offsetsOfGroup)
	cases.Run("segmentio-member-by-hand", time.Minute, memberByHand)
	cases.Run("segmentio-codecs", time.Minute, codecs)
	cases.Run("segmentio-acks", time.Minute, acks)
	cases.Run("segmentio-reader-seeks", time.Minute, readerSeeks)
	cases.Run("segmentio-readers-of-group", time.Minute, readersOfGroup)
	cases.End()
}

func refused(err error, expected kafka.Error, what string) {
	if !errors.Is(err, expected) {
		cases.Fail("%s: %v, not %s", what, err, expected.Title())
	}
}

func create(ctx context.Context, config kafka.TopicConfig) error {
	made := cases.Must(client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{config}}))
	return made.Errors[config.Topic]
}

// topic makes one, and waits until it can be used: a Kafka answers before, and this client does not try again.
func topic(ctx context.Context, name string, partitions int) string {
	name = cases.Named(name)
	cases.Ok(create(ctx, kafka.TopicConfig{Topic: name, NumPartitions: partitions, ReplicationFactor: 1}), "creating "+name)
	var all []kafka.OffsetRequest
	for partition := range partitions {
		all = append(all, kafka.LastOffsetOf(partition))
	}
	cases.Until(ctx, name+" is led", func() bool {
		listed, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{name: all}})
		unled := func(offsets kafka.PartitionOffsets) bool { return offsets.Error != nil }
		return err == nil && len(listed.Topics[name]) == partitions && !slices.ContainsFunc(listed.Topics[name], unled)
	})
	return name
}

// metadata is what the broker says of one topic.
func metadata(ctx context.Context, name string) kafka.Topic {
	return cases.Must(client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{name}})).Topics[0]
}

func topics(ctx context.Context) {
	name := topic(ctx, "segmentio-made", 3)
	made := metadata(ctx, name)
	cases.Same(len(made.Partitions), 3, "its partitions")
	cases.Same(fmt.Sprintf("%s:%d", made.Partitions[0].Leader.Host, made.Partitions[0].Leader.Port), cases.Bootstrap, "its leader")
	refused(create(ctx, kafka.TopicConfig{Topic: name, NumPartitions: 1, ReplicationFactor: 1}), kafka.TopicAlreadyExists, "the same name again")
	two := kafka.TopicConfig{Topic: cases.Named("two"), NumPartitions: 1, ReplicationFactor: 2}
	refused(create(ctx, two), kafka.InvalidReplicationFactor, "two replicas")
	unheard := kafka.TopicConfig{
		Topic: cases.Named("unheard"), NumPartitions: 1, ReplicationFactor: 1, ConfigEntries: []kafka.ConfigEntry{{ConfigName: "no.such", ConfigValue: "1"}},
	}
	refused(create(ctx, unheard), kafka.InvalidConfiguration, "an unknown setting")

	grow := func(count int32) error {
		request := &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: name, Count: count}}}
		return cases.Must(client.CreatePartitions(ctx, request)).Errors[name]
	}
	cases.Ok(grow(5), "five partitions")
	// a Kafka that has answered may not know it yet
	cases.Until(ctx, "it has five partitions", func() bool { return len(metadata(ctx, name).Partitions) == 5 })
	refused(grow(4), kafka.InvalidPartitionNumber, "four partitions")
	remove := func() error {
		return cases.Must(client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{name}})).Errors[name]
	}
	cases.Ok(remove(), "deleting it")
	refused(remove(), kafka.UnknownTopicOrPartition, "deleting it again")
	versions := cases.Must(client.ApiVersions(ctx, &kafka.ApiVersionsRequest{}))
	cases.Ok(versions.Error, "its versions")
	if len(versions.ApiKeys) < 20 {
		cases.Fail("only %d APIs", len(versions.ApiKeys))
	}
}

// topicsByConnection uses the older calls of a Conn, which speaks the oldest versions that a broker takes.
func topicsByConnection(ctx context.Context) {
	conn := cases.Must(kafka.DialContext(ctx, "tcp", cases.Bootstrap))
	defer conn.Close()
	name := cases.Named("segmentio-conn")
	controller := cases.Must(conn.Controller())
	cases.Same(fmt.Sprintf("%s:%d", controller.Host, controller.Port), cases.Bootstrap, "the controller")
	cases.Ok(conn.CreateTopics(kafka.TopicConfig{Topic: name, NumPartitions: 2, ReplicationFactor: 1}), "creating")
	cases.Until(ctx, "it has two partitions", func() bool {
		partitions, err := conn.ReadPartitions(name)
		return err == nil && len(partitions) == 2
	})
	leader := cases.Must(kafka.DialLeader(ctx, "tcp", cases.Bootstrap, name, 1))
	defer leader.Close()
	cases.Must(leader.WriteMessages(kafka.Message{Value: []byte("one")}, kafka.Message{Value: []byte("two")}))
	first, last, err := leader.ReadOffsets()
	cases.Ok(err, "reading offsets")
	cases.Same([2]int64{first, last}, [2]int64{0, 2}, "its offsets")
	cases.Must(leader.Seek(1, kafka.SeekAbsolute))
	cases.Ok(leader.SetReadDeadline(time.Now().Add(10*time.Second)), "a deadline")
	cases.Same(string(cases.Must(leader.ReadMessage(1_000_000)).Value), "two", "what is read from offset 1")
	cases.Ok(conn.DeleteTopics(name), "deleting")
}

func configs(ctx context.Context) {
	name := topic(ctx, "segmentio-configs", 1)
	alter := func(operation kafka.ConfigOperation, key, value string) error {
		answer := cases.Must(client.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{
			Resources: []kafka.IncrementalAlterConfigsRequestResource{{
				ResourceType: kafka.ResourceTypeTopic, ResourceName: name,
				Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: key, Value: value, ConfigOperation: operation}},
			}},
		}))
		return answer.Resources[0].Error
	}
	shown := func(key string) func() string { return func() string { return config(ctx, name, key) } }
	cases.Ok(alter(kafka.ConfigOperationSet, "retention.ms", "777777"), "setting")
	cases.Soon(shown("retention.ms"), "777777", "what was set")
	cases.Ok(alter(kafka.ConfigOperationDelete, "retention.ms", ""), "deleting")
	cases.Soon(shown("retention.ms"), "604800000", "the default")
	refused(alter(kafka.ConfigOperationSet, "retention.ms", "soon"), kafka.InvalidConfiguration, "a value")
	refused(alter(kafka.ConfigOperationSet, "no.such", "1"), kafka.InvalidConfiguration, "a setting")

	answer := cases.Must(client.AlterConfigs(ctx, &kafka.AlterConfigsRequest{Resources: []kafka.AlterConfigRequestResource{{
		ResourceType: kafka.ResourceTypeTopic, ResourceName: name,
		Configs: []kafka.AlterConfigRequestConfig{{Name: "max.message.bytes", Value: "2000000"}},
	}}}))
	for _, err := range answer.Errors {
		cases.Ok(err, "setting all")
	}
	cases.Soon(shown("max.message.bytes"), "2000000", "what was set then")
}

func config(ctx context.Context, topic, name string) string {
	described := cases.Must(client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{{
		ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ConfigNames: []string{name},
	}}}))
	cases.Ok(described.Resources[0].Error, "describing configs")
	cases.Same(len(described.Resources[0].ConfigEntries), 1, "settings, where one was asked for")
	return described.Resources[0].ConfigEntries[0].ConfigValue
}

// leadersAndReassignments: with one replica of everything there is nothing to choose, which is an answer too.
func leadersAndReassignments(ctx context.Context) {
	name := topic(ctx, "segmentio-led", 2)
	leader := metadata(ctx, name).Partitions[0].Leader.ID
	elected := cases.Must(client.ElectLeaders(ctx, &kafka.ElectLeadersRequest{Topic: name, Partitions: []int{0, 7}, Timeout: 10 * time.Second}))
	cases.Ok(elected.Error, "electing")
	for _, result := range elected.PartitionResults {
		if result.Partition == 0 {
			refused(result.Error, kafka.ElectionNotNeeded, "a leader where there is one")
		} else {
			refused(result.Error, kafka.UnknownTopicOrPartition, "a leader of nothing")
		}
	}
	assign := func(brokers ...int) error {
		answer := cases.Must(client.AlterPartitionReassignments(ctx, &kafka.AlterPartitionReassignmentsRequest{
			Topic: name, Timeout: 10 * time.Second, Assignments: []kafka.AlterPartitionReassignmentsRequestAssignment{{PartitionID: 1, BrokerIDs: brokers}},
		}))
		cases.Ok(answer.Error, "reassigning")
		return answer.PartitionResults[0].Error
	}
	cases.Ok(assign(leader), "to where it is")
	refused(assign(leader+77), kafka.InvalidReplicaAssignment, "to a broker that is not there")
	listed := cases.Must(client.ListPartitionReassignments(ctx, &kafka.ListPartitionReassignmentsRequest{Timeout: 10 * time.Second}))
	cases.Ok(listed.Error, "listing")
	cases.Same(len(listed.Topics), 0, "what is under way")
}

// write produces so many records, a second apart, the first at `from`.
func write(ctx context.Context, topic string, partition, count int, from time.Time) {
	for i := range count {
		answer := cases.Must(client.Produce(ctx, &kafka.ProduceRequest{
			Topic: topic, Partition: partition, RequiredAcks: kafka.RequireAll,
			Records: kafka.NewRecordReader(kafka.Record{
				Time: from.Add(time.Duration(i) * time.Second), Key: kafka.NewBytes([]byte("k")), Value: kafka.NewBytes(fmt.Appendf(nil, "v%d", i)),
			}),
		}))
		cases.Ok(answer.Error, "producing")
		cases.Same(answer.BaseOffset, int64(i), "the offset")
	}
}

func produceAndFetch(ctx context.Context) {
	name := topic(ctx, "segmentio-fetch", 1)
	write(ctx, name, 0, 10, time.Now())
	answer := cases.Must(client.Fetch(ctx, &kafka.FetchRequest{
		Topic: name, Partition: 0, Offset: 4, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Second,
	}))
	cases.Ok(answer.Error, "fetching")
	cases.Same(answer.HighWatermark, int64(10), "the high watermark")
	found := ""
	for {
		record, err := answer.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			break
		}
		cases.Ok(err, "a record")
		found += fmt.Sprintf("%d:%s ", record.Offset, cases.Must(kafka.ReadAll(record.Value)))
	}
	cases.Same(found, "4:v4 5:v5 6:v6 7:v7 8:v8 9:v9 ", "the records")
	beyond := cases.Must(client.Fetch(ctx, &kafka.FetchRequest{Topic: name, Partition: 0, Offset: 11, MinBytes: 1, MaxBytes: 1 << 20}))
	refused(beyond.Error, kafka.OffsetOutOfRange, "beyond the end")
	session := cases.Must(client.InitProducerID(ctx, &kafka.InitProducerIDRequest{}))
	cases.Ok(session.Error, "a producer's id")
	cases.Same(session.Producer.ProducerEpoch, 0, "its epoch")
}

func listOffsets(ctx context.Context) {
	name := topic(ctx, "segmentio-offsets", 1)
	began := time.Now().Add(-time.Hour).Truncate(time.Second)
	write(ctx, name, 0, 10, began)
	listed := cases.Must(client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		name: {kafka.FirstOffsetOf(0), kafka.LastOffsetOf(0), kafka.TimeOffsetOf(0, began.Add(2500*time.Millisecond))},
	}})).Topics[name][0]
	cases.Ok(listed.Error, "listing")
	cases.Same([2]int64{listed.FirstOffset, listed.LastOffset}, [2]int64{0, 10}, "the first and the last")
	_, found := listed.Offsets[3]
	cases.Same(found, true, fmt.Sprintf("offset 3 by time, among %v", listed.Offsets))
}

func offsetsOfGroup(ctx context.Context) {
	name, group := topic(ctx, "segmentio-group", 2), cases.Named("segmentio-offsets")
	committed := cases.Must(client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: group, GenerationID: -1,
		Topics: map[string][]kafka.OffsetCommit{name: {{Partition: 0, Offset: 3, Metadata: "my note"}, {Partition: 1, Offset: 7}}},
	}))
	for _, partition := range committed.Topics[name] {
		cases.Ok(partition.Error, "committing")
	}
	cases.Same(fetched(ctx, group, name), "0=3 my note, 1=7 , ", "what is committed")
	deleted := cases.Must(client.OffsetDelete(ctx, &kafka.OffsetDeleteRequest{GroupID: group, Topics: map[string][]int{name: {1}}}))
	cases.Ok(deleted.Error, "deleting an offset")
	cases.Ok(deleted.Topics[name][0].Error, "deleting an offset")
	cases.Same(fetched(ctx, group, name), "0=3 my note, 1=-1 , ", "what is left")

	listed := cases.Must(client.ListGroups(ctx, &kafka.ListGroupsRequest{}))
	cases.Ok(listed.Error, "listing groups")
	found := false
	for _, one := range listed.Groups {
		found = found || one.GroupID == group
	}
	cases.Same(found, true, "the group is listed")
	described := cases.Must(client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{group}})).Groups[0]
	cases.Ok(described.Error, "describing it")
	cases.Same(described.GroupState, "Empty", "its state")
	coordinator := cases.Must(client.FindCoordinator(ctx, &kafka.FindCoordinatorRequest{Key: group, KeyType: kafka.CoordinatorKeyTypeConsumer}))
	cases.Ok(coordinator.Error, "its coordinator")
	cases.Same(fmt.Sprintf("%s:%d", coordinator.Coordinator.Host, coordinator.Coordinator.Port), cases.Bootstrap, "its coordinator")
	remove := func() error {
		return cases.Must(client.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{group}})).Errors[group]
	}
	cases.Ok(remove(), "deleting the group")
	refused(remove(), kafka.GroupIdNotFound, "deleting it again")
}

func fetched(ctx context.Context, group, topic string) (found string) {
	answer := cases.Must(client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: {0, 1}}}))
	cases.Ok(answer.Error, "fetching offsets")
	for _, partition := range answer.Topics[topic] {
		cases.Ok(partition.Error, "a fetched offset")
		found += fmt.Sprintf("%d=%d %s, ", partition.Partition, partition.CommittedOffset, partition.Metadata)
	}
	return found
}

// memberByHand goes through a group's life call by call.
func memberByHand(ctx context.Context) {
	name, group := topic(ctx, "segmentio-by-hand", 1), cases.Named("segmentio-by-hand")
	join := &kafka.JoinGroupRequest{
		GroupID: group, SessionTimeout: 30 * time.Second, RebalanceTimeout: 30 * time.Second, ProtocolType: "consumer",
		Protocols: []kafka.GroupProtocol{{Name: "range", Metadata: kafka.GroupProtocolSubscription{Topics: []string{name}}}},
	}
	joined := cases.Must(client.JoinGroup(ctx, join))
	for errors.Is(joined.Error, kafka.NotCoordinatorForGroup) || errors.Is(joined.Error, kafka.GroupLoadInProgress) {
		// a Kafka that has just started; the client does not try again
		time.Sleep(100 * time.Millisecond)
		joined = cases.Must(client.JoinGroup(ctx, join))
	}
	if errors.Is(joined.Error, kafka.MemberIDRequired) {
		join.MemberID = joined.MemberID
		joined = cases.Must(client.JoinGroup(ctx, join))
	}
	cases.Ok(joined.Error, "joining")
	cases.Same(joined.LeaderID, joined.MemberID, "the leader")
	cases.Same(len(joined.Members), 1, "the members")
	synced := cases.Must(client.SyncGroup(ctx, &kafka.SyncGroupRequest{
		GroupID: group, GenerationID: joined.GenerationID, MemberID: joined.MemberID, ProtocolType: "consumer", ProtocolName: "range",
		Assignments: []kafka.SyncGroupRequestAssignment{{
			MemberID: joined.MemberID, Assignment: kafka.GroupProtocolAssignment{AssignedPartitions: map[string][]int{name: {0}}},
		}},
	}))
	cases.Ok(synced.Error, "syncing")
	cases.Same(synced.Assignment.AssignedPartitions, map[string][]int{name: {0}}, "the assignment")
	// v0.4.51 never sees the error of a heartbeat: it looks for it where the throttle time is
	beat := cases.Must(client.Heartbeat(ctx, &kafka.HeartbeatRequest{
		GroupID: group, GenerationID: int32(joined.GenerationID), MemberID: joined.MemberID,
	}))
	cases.Ok(beat.Error, "a heartbeat")
	commit := func(generation int) error {
		return cases.Must(client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
			GroupID: group, GenerationID: generation, MemberID: joined.MemberID,
			Topics: map[string][]kafka.OffsetCommit{name: {{Partition: 0, Offset: 0}}},
		})).Topics[name][0].Error
	}
	cases.Ok(commit(joined.GenerationID), "a commit")
	refused(commit(joined.GenerationID+1), kafka.IllegalGeneration, "a commit of another generation")
	described := cases.Must(client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{group}})).Groups[0]
	cases.Same(described.GroupState, "Stable", "its state")
	cases.Same(described.Members[0].MemberID, joined.MemberID, "its member")
	cases.Same(described.Members[0].MemberAssignments.Topics[0].Partitions, []int{0}, "what the member has")
	left := cases.Must(client.LeaveGroup(ctx, &kafka.LeaveGroupRequest{
		GroupID: group, Members: []kafka.LeaveGroupRequestMember{{ID: joined.MemberID}},
	}))
	cases.Ok(left.Error, "leaving")
	refused(commit(joined.GenerationID), kafka.UnknownMemberId, "a commit of one who has left")
}

func codecs(ctx context.Context) {
	name := topic(ctx, "segmentio-codecs", 1)
	all := []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd}
	for _, codec := range all {
		writer := &kafka.Writer{
			Addr: kafka.TCP(cases.Bootstrap), Topic: name, Compression: codec, RequiredAcks: kafka.RequireAll, BatchTimeout: 5 * time.Millisecond,
		}
		var messages []kafka.Message
		for i := range 100 {
			messages = append(messages, kafka.Message{
				Key: []byte(codec.String()), Value: fmt.Appendf(nil, "%d and what compresses well, well, well, well", i),
				Headers: []kafka.Header{{Key: "same", Value: []byte("1")}, {Key: "same", Value: []byte("2")}},
			})
		}
		cases.Ok(writer.WriteMessages(ctx, messages...), "writing "+codec.String())
		cases.Ok(writer.Close(), "closing")
	}
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: brokers, Topic: name, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: 100 * time.Millisecond})
	defer reader.Close()
	for n := range 100 * len(all) {
		message := cases.Must(reader.ReadMessage(ctx))
		cases.Same(message.Offset, int64(n), "the offset")
		cases.Same(string(message.Key), all[n/100].String(), "the key")
		cases.Same(string(message.Value), fmt.Sprintf("%d and what compresses well, well, well, well", n%100), "the value")
		cases.Same(len(message.Headers), 2, "headers")
	}
}

// acks: writers that wait for nobody, for the leader and for all, into a topic that the first of them makes by asking for it.
func acks(ctx context.Context) {
	name := cases.Named("segmentio-acks")
	kinds := []kafka.RequiredAcks{kafka.RequireOne, kafka.RequireNone, kafka.RequireAll}
	for _, kind := range kinds {
		writer := &kafka.Writer{
			Addr: kafka.TCP(cases.Bootstrap), Topic: name, RequiredAcks: kind, AllowAutoTopicCreation: true, BatchTimeout: time.Millisecond,
		}
		cases.Until(ctx, "written with acks "+kind.String(), func() bool {
			err := writer.WriteMessages(ctx, kafka.Message{Value: []byte(kind.String())})
			if err != nil && !errors.Is(err, kafka.UnknownTopicOrPartition) && !errors.Is(err, kafka.LeaderNotAvailable) {
				cases.Fail("writing with acks %s: %v", kind, err)
			}
			return err == nil
		})
		cases.Ok(writer.Close(), "closing")
	}
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: brokers, Topic: name, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: 100 * time.Millisecond})
	defer reader.Close()
	found := map[string]int{}
	for range kinds {
		found[string(cases.Must(reader.ReadMessage(ctx)).Value)]++
	}
	cases.Same(found, map[string]int{"one": 1, "none": 1, "all": 1}, "what is read")
}

func readerSeeks(ctx context.Context) {
	name := topic(ctx, "segmentio-seeks", 1)
	began := time.Now().Add(-time.Hour).Truncate(time.Second)
	write(ctx, name, 0, 10, began)
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: brokers, Topic: name, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: 100 * time.Millisecond})
	defer reader.Close()
	next := func() string { return string(cases.Must(reader.ReadMessage(ctx)).Value) }
	cases.Same(next(), "v0", "the first")
	cases.Ok(reader.SetOffset(7), "seeking")
	cases.Same(next(), "v7", "at offset 7")
	cases.Ok(reader.SetOffsetAt(ctx, began.Add(2500*time.Millisecond)), "seeking by time")
	cases.Same(next(), "v3", "by time")
	cases.Same(cases.Must(reader.ReadLag(ctx)), int64(6), "its lag")
}

func readersOfGroup(ctx context.Context) {
	name, group := topic(ctx, "segmentio-readers", 4), cases.Named("segmentio-readers")
	writer := &kafka.Writer{Addr: kafka.TCP(cases.Bootstrap), Topic: name, Balancer: &kafka.RoundRobin{}, BatchTimeout: 5 * time.Millisecond}
	produce := func(from, to int) {
		var messages []kafka.Message
		for i := from; i < to; i++ {
			messages = append(messages, kafka.Message{Value: fmt.Append(nil, i)})
		}
		cases.Ok(writer.WriteMessages(ctx, messages...), "writing")
	}
	values := make(chan string, 2000)
	start := func() *kafka.Reader {
		reader := kafka.NewReader(kafka.ReaderConfig{
			Brokers: brokers, GroupID: group, Topic: name, StartOffset: kafka.FirstOffset, MinBytes: 1, MaxBytes: 1 << 20,
			MaxWait: 100 * time.Millisecond, HeartbeatInterval: 200 * time.Millisecond, SessionTimeout: 6 * time.Second, JoinGroupBackoff: 200 * time.Millisecond,
		})
		go func() {
			for {
				message, err := reader.FetchMessage(ctx)
				if err != nil || reader.CommitMessages(ctx, message) != nil {
					return
				}
				values <- string(message.Value)
			}
		}()
		return reader
	}
	first, second := start(), start()
	state := func() string {
		described := cases.Must(client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{group}})).Groups[0]
		return fmt.Sprint(len(described.Members), " ", described.GroupState)
	}
	cases.Until(ctx, "two are stable", func() bool { return state() == "2 Stable" })
	produce(0, 400)
	seen := map[string]bool{}
	read := func(count int, what string) {
		cases.Until(ctx, what, func() bool {
			for len(values) > 0 {
				seen[<-values] = true
			}
			return len(seen) == count
		})
	}
	read(400, "all is read")
	cases.Ok(first.Close(), "closing the first")
	cases.Until(ctx, "one is stable", func() bool { return state() == "1 Stable" })
	produce(400, 800)
	read(800, "the rest is read")
	cases.Ok(second.Close(), "closing the second")
	cases.Ok(writer.Close(), "closing the writer")
	answer := cases.Must(client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{name: {0, 1, 2, 3}}}))
	total := int64(0)
	for _, partition := range answer.Topics[name] {
		total += partition.CommittedOffset
	}
	cases.Same(total, int64(800), "what is committed")
}
