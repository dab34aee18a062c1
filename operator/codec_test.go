package operator

import (
	"encoding/binary"
	"math"
	"math/big"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"
	"pgregory.net/rapid"
)

type point struct{ X, Y int32 }

type everything struct {
	B    bool
	I    int64
	U    uint16
	F    float64
	G    float32
	S    string
	Raw  []byte
	Fix  [4]byte
	List []point
	Pair [2]string
	Ptr  *point
	When time.Time
	Wait time.Duration
	Addr netip.Addr
	Skip chan int `msgpack:"-"`
	Strs map[string]int
	Ints map[int]string
	Pts  map[point][]map[uint8]bool
	Arrs map[[2]int16]map[string]point
	Fl   map[float64]*map1
	Deep *everything
}

type map1 struct{ M map[bool]string }

func full() everything {
	e := everything{
		B: true, I: -5, U: 60000, F: math.Pi, G: -1.5, S: "häuser", Raw: []byte{0, 255}, Fix: [4]byte{1, 2, 3, 4},
		List: []point{{1, 2}, {-3, math.MaxInt32}}, Pair: [2]string{"a", ""}, Ptr: &point{9, 9},
		When: time.Date(2024, 2, 29, 1, 2, 3, 4, time.UTC), Wait: time.Hour, Addr: netip.MustParseAddr("::1"),
		Strs: map[string]int{}, Ints: map[int]string{}, Pts: map[point][]map[uint8]bool{}, Arrs: map[[2]int16]map[string]point{},
		Fl: map[float64]*map1{math.Inf(1): nil, -0.5: {M: map[bool]string{true: "t", false: "f"}}},
	}
	for i := range 50 {
		e.Strs[strings.Repeat("k", i)] = i
		e.Ints[i*i*i*i*(1-i%2*2)] = "v"
		e.Pts[point{int32(i), int32(-i)}] = []map[uint8]bool{{uint8(i): true, 200: false}, nil}
		e.Arrs[[2]int16{int16(i), 1}] = map[string]point{"a": {}, "b": {1, 1}, "c": {}}
	}
	inner := e
	e.Deep = &inner
	return e
}

func TestMsgPackIsDeterministicForEveryKindOfMap(t *testing.T) {
	checkCodec(t, full())
	checkCodec(t, everything{})
	checkCodec(t, map[int]int{1: 1, 2: 2, 3: 3, -4: 4, 1 << 40: 5})
	checkCodec(t, map[string]string{"a": "b", "c": "d", "": ""})
	checkCodec(t, map[[3]byte]bool{{1}: true, {2}: false, {0, 1}: true})
	checkCodec(t, map[point]point{{1, 2}: {3, 4}, {2, 1}: {}, {0, 7}: {}})
	checkCodec(t, map[time.Duration][]map[uint64]struct{}{1: {{1: {}, 2: {}, 3: {}}}, 2: nil, 3: {}})
	checkCodec(t, []map[int8]string{{1: "x", 2: "y", 3: "z"}, nil, {}})
	checkCodec(t, &map1{M: map[bool]string{true: "a", false: "b"}})
	checkCodec(t, map[float32]int{1: 1, 2: 2, 3: 3, 0.25: 4})
	nan := math.NaN()
	c, err := MsgPack[map[float64]int]()
	require.NoError(t, err)
	require.NoError(t, CheckDeterministic(c, map[float64]int{nan: 1, math.NaN(): 2, math.NaN(): 3, 1: 4}))
}

// checkCodec checks the default codec on one value: deterministic, and nothing lost.
func checkCodec[T any](t *testing.T, v T) {
	t.Helper()
	c, err := MsgPack[T]()
	require.NoError(t, err)
	require.NoError(t, CheckDeterministic(c, v))
	b, err := c.Append(nil, v)
	require.NoError(t, err)
	back, err := c.Decode(b)
	require.NoError(t, err)
	require.Equal(t, v, back)
	for i := 0; i < len(b); i += 1 + len(b)/200 { // a proper prefix is an error and no panic
		if _, err := c.Decode(b[:i]); err == nil && i > 0 {
			t.Fatalf("%d of %d bytes of %T were taken for a value", i, len(b), v)
		}
	}
	_, err = c.Decode(append(b, 0))
	require.ErrorIs(t, err, ErrEncoding)
}

type (
	name  string
	level int8
)

func TestMsgPackScalars(t *testing.T) {
	for _, i := range []int64{0, 1, -1, 31, -32, -33, 127, 128, -128, -129, 255, 256, 65535, 65536, -32768, -32769,
		math.MaxInt32, math.MaxUint32, math.MaxUint32 + 1, math.MinInt32, math.MinInt32 - 1, math.MaxInt64, math.MinInt64} {
		checkCodec(t, []int64{i})
		v := appendInt(nil, i)
		got, rest, err := readInt(v)
		require.NoError(t, err)
		require.Empty(t, rest)
		require.Equal(t, i, got)
		checkCodec(t, struct{ V uint64 }{uint64(i)})
	}
	checkCodec(t, []name{"a", ""})
	checkCodec(t, struct{ L level }{-7})
	for _, n := range []int{0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536} {
		checkCodec(t, struct{ S string }{strings.Repeat("x", n)})
		checkSize(t, n)
	}
	c, err := MsgPack[int8]()
	require.NoError(t, err)
	_, err = c.Decode(appendInt(nil, 128))
	require.ErrorIs(t, err, ErrEncoding)
}

func checkSize(t *testing.T, n int) {
	t.Helper()
	for _, tags := range []*sizedTags{&strTags, &binTags, &arrayTags, &mapTags} {
		b := tags.append(nil, n)
		got, _, err := tags.read(append(b, make([]byte, 2*n)...))
		require.NoError(t, err)
		require.Equal(t, n, got)
		if n > 0 {
			_, _, err = tags.read(b)
			require.ErrorIs(t, err, ErrEncoding)
		}
	}
}

func TestMsgPackIsReadByOthers(t *testing.T) {
	type row struct {
		A int
		B string
		C map[int]string
		D []byte
		E time.Time
	}
	v := row{-1000, "b", map[int]string{2: "two", 1: "one"}, []byte("raw"), time.Unix(1e9, 5).UTC()}
	c, err := MsgPack[row]()
	require.NoError(t, err)
	b, err := c.Append(nil, v)
	require.NoError(t, err)
	var got struct {
		_msgpack struct{} `msgpack:",as_array"`
		A        int
		B        string
		C        map[int]string
		D        []byte
		E        time.Time
	}
	require.NoError(t, msgpack.Unmarshal(b, &got))
	require.Equal(t, v, row{got.A, got.B, got.C, got.D, got.E.UTC()})
}

func TestMsgPackAFieldAddedAtTheEndIsZero(t *testing.T) {
	before, err := MsgPack[struct{ A int }]()
	require.NoError(t, err)
	after, err := MsgPack[struct {
		A int
		B string
	}]()
	require.NoError(t, err)
	b, err := before.Append(nil, struct{ A int }{7})
	require.NoError(t, err)
	v, err := after.Decode(b)
	require.NoError(t, err)
	require.Equal(t, 7, v.A)
}

type hidden struct {
	A int
	b int //lint:ignore U1000 it is here to be refused
}
type embedsTime struct {
	time.Time
	N int
}
type tree struct{ Kids []tree }

func TestMsgPackRefuses(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{refusal[any](), "an interface can't be encoded in one way only"},
		{refusal[func()](), "func"},
		{refusal[struct{ C chan int }](), "field C of struct { C chan int }: a chan"},
		{refusal[map[string]any](), "map value: an interface"},
		{refusal[hidden](), "field b of operator.hidden is not exported"},
		{refusal[embedsTime](), "embeds time.Time"},
		{refusal[map[*int]int](), "compares by address"},
		{refusal[map[time.Time]int](), "compares by address"},
		{refusal[**int](), "nil"},
		{refusal[complex128](), "complex128"},
	} {
		require.ErrorContains(t, c.err, c.want)
		require.ErrorContains(t, c.err, "WithCodec")
	}
	require.NoError(t, refusal[tree]())
	require.NoError(t, refusal[big.Int]())
	checkCodec(t, map[string]*big.Int{"a": big.NewInt(-1 << 40), "b": nil})
}

func refusal[T any]() error {
	_, err := MsgPack[T]()
	return err
}

func TestMsgPackBoundsDepth(t *testing.T) {
	c, err := MsgPack[tree]()
	require.NoError(t, err)
	deep := tree{}
	for range 2 * maxDepth {
		deep = tree{Kids: []tree{deep}}
	}
	_, err = c.Append(nil, deep)
	require.ErrorContains(t, err, "levels deep")
	b := []byte(strings.Repeat("\x91", 1<<20))
	_, err = c.Decode(b)
	require.ErrorIs(t, err, ErrEncoding)
}

func TestJSON(t *testing.T) {
	c := JSON[map[string]any]()
	require.NoError(t, CheckDeterministic(c, map[string]any{"b": "<&>", "a": 1.5, "c": nil}))
	b, err := c.Append([]byte("x"), map[string]any{"b": "<&>", "a": 1.5})
	require.NoError(t, err)
	require.Equal(t, `x{"a":1.5,"b":"<&>"}`, string(b))
}

// shuffled is a codec as one would write it without thinking.
type shuffled struct{}

func (shuffled) Append(dst []byte, v map[int]int) ([]byte, error) {
	for k := range v {
		dst = binary.AppendVarint(dst, int64(k))
	}
	return dst, nil
}
func (shuffled) Decode([]byte) (map[int]int, error) { return nil, nil }

func TestChecksFindWhatIsNotDeterministic(t *testing.T) {
	m := map[int]int{}
	for i := range 100 {
		m[i] = i
	}
	require.ErrorContains(t, CheckDeterministic[map[int]int](shuffled{}, m), "encoded as")
	calls := 0
	good := func(ctx Context, v int, emit func(int64)) error {
		emit(ctx.Now().UnixMilli() + ctx.Rand().Int64N(10) + int64(v))
		return nil
	}
	ints, err := MsgPack[int64]()
	require.NoError(t, err)
	require.NoError(t, CheckFunction(good, ints, 1, 2, 3))
	bad := func(ctx Context, v int, emit func(int64)) error {
		calls++
		emit(int64(calls))
		return nil
	}
	require.ErrorContains(t, CheckFunction(bad, ints, 1, 2, 3), "when run again")
}

func FuzzMsgPackDecode(f *testing.F) {
	c, err := MsgPack[everything]()
	require.NoError(f, err)
	b, err := c.Append(nil, everything{S: "s", List: []point{{1, 2}}, Ptr: &point{}, Ints: map[int]string{1: "a", 2: ""},
		Fl: map[float64]*map1{1: {}}, Deep: &everything{Raw: []byte("raw")}})
	require.NoError(f, err)
	f.Add(b)
	f.Add([]byte{0x91, 0xc0})
	f.Fuzz(func(t *testing.T, src []byte) {
		v, err := c.Decode(src)
		if err != nil {
			return
		}
		first, err := c.Append(nil, v)
		require.NoError(t, err)
		again, err := c.Decode(first)
		require.NoError(t, err)
		second, err := c.Append(nil, again)
		require.NoError(t, err)
		require.Equal(t, first, second)
	})
}

func TestMsgPackRandomValues(t *testing.T) {
	c, err := MsgPack[map[point]map[string][]int64]()
	require.NoError(t, err)
	value := rapid.MapOf(rapid.Make[point](), rapid.MapOf(rapid.String(), rapid.SliceOf(rapid.Int64())))
	rapid.Check(t, func(t *rapid.T) {
		v := value.Draw(t, "value")
		if err := CheckDeterministic(c, v); err != nil {
			t.Fatal(err)
		}
		b, _ := c.Append(nil, v)
		back, err := c.Decode(b)
		if err != nil || len(v) > 0 && !reflect.DeepEqual(v, back) {
			t.Fatalf("%v came back as %v: %v", v, back, err)
		}
	})
}
