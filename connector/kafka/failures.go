package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/understudy-stream/understudy/operator"
)

// Errors that a caller may branch on. Those that no other try can mend have operator.ErrPermanent in their chain.
var (
	// ErrNoTopic is returned when a topic is not there, or has too few partitions.
	ErrNoTopic = permanent("kafka: no such topic")
	// ErrJob is returned when another job writes, or has written, to the place.
	ErrJob = permanent("kafka: the place belongs to another job")
	// ErrCorrupt is returned when what is stored beside the output cannot be, or part of it was removed by someone else.
	ErrCorrupt = permanent("kafka: corrupt")
	// ErrRefused is returned when the brokers do not let the client do what it must, or do not take a record.
	ErrRefused = permanent("kafka: the brokers refuse")
	// ErrExpired is returned when the brokers have dropped a transaction that was prepared: its output is lost.
	ErrExpired = permanent("kafka: the prepared transaction is gone")
	// ErrRetention is returned when records that must be read, perhaps again, are no longer there.
	ErrRetention = permanent("kafka: records were removed before they were read for the last time")
	// ErrRecreated is returned when a topic is not the one any more that the job began with.
	ErrRecreated = permanent("kafka: the topic was deleted and made anew")
	// ErrSplit is returned for the name of a split that this package did not give.
	ErrSplit = permanent("kafka: not a split of this source")
	// ErrGap is returned for a write that does not begin where the output ends.
	ErrGap = errors.New("kafka: the write does not begin where the output ends")
	// ErrUnfenced is returned for a call by an incarnation that no Fence has announced.
	ErrUnfenced = errors.New("kafka: the writer has not fenced the store")
	// ErrAborted is returned when the brokers have dropped a transaction that was not prepared yet. The task's next life writes
	// its records again.
	ErrAborted = errors.New("kafka: the open transaction was aborted")
	// ErrClosed is returned by a store that was closed, also by calls that were under way.
	ErrClosed = errors.New("kafka: closed")
)

// permanent makes an error that ends the job: whoever tries again gets it again.
func permanent(text string) error { return permanentError(text) }

type permanentError string

func (e permanentError) Error() string        { return string(e) }
func (e permanentError) Is(target error) bool { return target == operator.ErrPermanent }

// refusals are the answers of brokers that only a person can change.
var refusals = []error{
	kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed,
	kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState, kerr.InvalidTransactionTimeout,
	kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.InvalidTopicException, kerr.InvalidRequiredAcks,
	kerr.UnsupportedVersion, kerr.UnsupportedForMessageFormat, kerr.PolicyViolation, kerr.SecurityDisabled, kerr.InvalidTimestamp,
}

// judged wraps an error of the client: in ErrRefused if another try would fail like this one.
func judged(err error) error {
	if err == nil || errors.Is(err, operator.ErrPermanent) {
		return err
	}
	for _, r := range refusals {
		if errors.Is(err, r) {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
	}
	return fmt.Errorf("kafka: %w", err)
}

// fencedOff tells whether an error says that the producer was replaced, or its transaction ended, by somebody else: a later
// InitProducerID, or the brokers when the transaction had lasted too long.
func fencedOff(err error) bool {
	for _, f := range []error{
		kerr.ProducerFenced, kerr.InvalidProducerEpoch, kerr.InvalidTxnState, kerr.InvalidProducerIDMapping, kerr.UnknownProducerID,
		kerr.TransactionAbortable,
	} {
		if errors.Is(err, f) {
			return true
		}
	}
	return false
}

// passes tells whether it may be mended by waiting.
func passes(err error) bool {
	return !errors.Is(err, operator.ErrPermanent) && !errors.Is(err, operator.ErrFenced) && !errors.Is(err, operator.ErrContradiction) &&
		!errors.Is(err, ErrGap) && !errors.Is(err, ErrUnfenced) && !errors.Is(err, context.Canceled) && !errors.Is(err, ErrClosed) &&
		!errors.Is(err, kgo.ErrClientClosed) && !errors.Is(err, ErrAborted)
}

// persist does something until it succeeds or fails for good, or ctx ends. Before each further try, waiting is told why,
// and so is call, which ends here. Both may be nil.
func persist(ctx context.Context, call *call, waiting func(error), do func() error) error {
	defer call.end()
	for tries := 1; ; tries++ {
		err := do()
		if err == nil {
			return nil
		}
		if cause := context.Cause(ctx); cause != nil {
			return fmt.Errorf("kafka: %w", cause)
		}
		if !passes(err) {
			return err
		}
		call.say(err)
		if waiting != nil {
			waiting(err)
		}
		timer := time.NewTimer(backoff(tries))
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("kafka: %w", context.Cause(ctx))
		case <-timer.C:
		}
	}
}
