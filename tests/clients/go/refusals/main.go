// What is not served here is refused so that franz-go and sarama end with an error that says so, and do not wait.
package main

import (
	"context"
	"errors"
	"log"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"sabir.test/clients/cases"
)

// A client that is told for good ends within this time.
const limit = 20 * time.Second

func main() {
	if os.Getenv("BROKER_KIND") != "kafka" {
		cases.Run("franz-transactions", limit, franzTransactions)
		cases.Run("franz-server-side-groups", limit, franzServerSideGroups)
		// sarama looks for the coordinator fifty times, a tenth of a second apart, whatever it is told
		cases.Run("sarama-transactions", 2*limit, saramaTransactions)
		// the control has an authorizer
		cases.Run("franz-listings", limit, franzListings)
		cases.Run("sarama-listings", limit, saramaListings)
	}
	cases.Run("franz-sasl", limit, franzSasl)
	cases.Run("sarama-sasl", limit, saramaSasl)
	cases.End()
}

func says(err error, text string) {
	if err == nil || !strings.Contains(err.Error(), text) {
		cases.Fail("%v, which does not say %q", err, text)
	}
}

func franz(options ...kgo.Opt) *kgo.Client {
	return cases.Must(kgo.NewClient(append(options, kgo.SeedBrokers(cases.Bootstrap))...))
}

func franzTransactions(context.Context) {
	client := franz(kgo.TransactionalID(cases.Named("txn")))
	defer client.Close()
	says(client.BeginTransaction(), "CLUSTER_AUTHORIZATION_FAILED")
}

// It falls back to classic groups when it is told that there are no others.
func franzServerSideGroups(ctx context.Context) {
	topic := cases.Named("server-side")
	client := franz(kgo.AllowAutoTopicCreation(), kgo.ConsumerGroup(topic), kgo.ConsumeTopics(topic), kgo.ServerSideBalancer(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer client.Close()
	cases.Ok(client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr(), "producing")
	fetches := client.PollFetches(ctx)
	cases.Ok(fetches.Err(), "reading")
	cases.Same(fetches.NumRecords(), 1, "records")
}

func franzSasl(ctx context.Context) {
	client := franz(kgo.SASL(plain.Auth{User: "u", Pass: "p"}.AsMechanism()))
	defer client.Close()
	says(client.Ping(ctx), "ILLEGAL_SASL_STATE")
}

func franzListings(ctx context.Context) {
	client := franz()
	defer client.Close()
	admin := kadm.NewClient(client)
	any := kadm.NewACLs().AnyResource().Allow().AllowHosts().Deny().DenyHosts().Operations().ResourcePatternType(kadm.ACLPatternAny)
	for _, described := range cases.Must(admin.DescribeACLs(ctx, any)) {
		cases.Same(errors.Is(described.Err, kerr.SecurityDisabled), true, "ACLs cannot be listed")
	}
	cases.Same(len(cases.Must(admin.DescribeUserSCRAMs(ctx))), 0, "users")
	cases.Same(len(cases.Must(admin.DescribeClientQuotas(ctx, false, nil))), 0, "quotas")
	cases.Same(len(cases.Must(admin.ListTransactions(ctx, nil, nil))), 0, "transactions")
}

func configured() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.V3_6_0_0
	config.Producer.Return.Successes = true
	return config
}

func saramaTransactions(context.Context) {
	config := configured()
	config.Producer.Idempotent = true
	config.Producer.Transaction.ID = cases.Named("txn")
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Net.MaxOpenRequests = 1
	_, err := sarama.NewSyncProducer([]string{cases.Bootstrap}, config)
	cases.Same(errors.Is(err, sarama.ErrClusterAuthorizationFailed), true, "it is told for good")
}

// logged is what a client has logged.
type logged struct {
	mutex sync.Mutex
	text  strings.Builder
}

func (l *logged) Write(text []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.Write(text)
}

func (l *logged) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.String()
}

// The error that it gives back names nothing; its log does.
func saramaSasl(context.Context) {
	config := configured()
	config.Net.SASL.Enable, config.Net.SASL.User, config.Net.SASL.Password = true, "u", "p"
	heard := &logged{}
	sarama.Logger = log.New(heard, "", 0)
	_, err := sarama.NewClient([]string{cases.Bootstrap}, config)
	says(err, "available brokers")
	if !strings.Contains(heard.String(), sarama.ErrIllegalSASLState.Error()) {
		cases.Fail("its log does not name the error: %s", heard)
	}
}

func saramaListings(context.Context) {
	admin := cases.Must(sarama.NewClusterAdmin([]string{cases.Bootstrap}, configured()))
	defer admin.Close()
	_, err := admin.ListAcls(sarama.AclFilter{
		ResourceType: sarama.AclResourceAny, ResourcePatternTypeFilter: sarama.AclPatternAny,
		Operation: sarama.AclOperationAny, PermissionType: sarama.AclPermissionAny,
	})
	says(err, "Security features are disabled")
	err = admin.CreateACL(
		sarama.Resource{ResourceType: sarama.AclResourceTopic, ResourceName: "t", ResourcePatternType: sarama.AclPatternLiteral},
		sarama.Acl{Principal: "User:a", Host: "*", Operation: sarama.AclOperationRead, PermissionType: sarama.AclPermissionAllow},
	)
	says(err, "Security features are disabled")
	cases.Same(len(cases.Must(admin.DescribeUserScramCredentials(nil))), 0, "users")
	cases.Same(len(cases.Must(admin.DescribeClientQuotas(nil, false))), 0, "quotas")
}
