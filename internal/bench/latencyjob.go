package bench

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/understudy-stream/understudy/internal/outside"
	"github.com/understudy-stream/understudy/operator"
)

// shown is the job of `bench latency`: ticks are spread over tasks as they arrive, each gets a number by chance, and they are shown. So what is
// shown depends on choices, of which the sink must have the determinants.
func (s *Spec) shown() (*operator.Job, error) {
	place, err := outside.At(s.Sink, s.Suffix, s.Parallelism)
	if err != nil {
		return nil, err
	}
	job := operator.NewJob("latency-" + s.Suffix)
	all := operator.From(job, "ticks", operator.Source[tick](&ticks{count: s.Records, rate: s.Rate, parts: s.Parallelism}),
		operator.WithCodec[tick](tickCodec{}))
	drawn := operator.Map(operator.Rebalanced(all), "draw", func(ctx operator.Context, t tick) (tick, error) {
		t.Sum = ctx.Rand().Uint64()
		return t, nil
	}, operator.WithCodec[tick](tickCodec{}))
	codec := operator.WithCodec[tick](objectCodec{pad: strings.Repeat("x", s.Pad)})
	switch own := place.Transactional(); {
	case !s.Transactional:
		operator.To(drawn, "visible", place.Causal(), codec)
	case own != nil:
		operator.ToTransactional(drawn, "visible", own, codec)
	default:
		operator.ToTransactional(drawn, "visible", operator.TransactionalSink(held{place.Causal()}), codec)
	}
	return job, nil
}

// objectCodec shows a tick as an object of JSON.
type objectCodec struct{ pad string }

// Append implements operator.Codec.
func (c objectCodec) Append(dst []byte, t tick) ([]byte, error) {
	dst = strconv.AppendUint(append(dst, `{"n":`...), t.N, 10)
	dst = strconv.AppendInt(append(dst, `,"due":`...), t.Due, 10)
	dst = strconv.AppendUint(append(dst, `,"sum":`...), t.Sum, 10)
	dst = append(append(dst, `,"pad":"`...), c.pad...)
	return append(dst, `"}`...), nil
}

// Decode implements operator.Codec.
func (objectCodec) Decode(src []byte) (t tick, err error) {
	if err := json.Unmarshal(src, &t); err != nil {
		return t, fmt.Errorf("bench: record %.200q: %w", src, err)
	}
	return t, nil
}
