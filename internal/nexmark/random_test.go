package nexmark

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// What java.util.Random gives for the seed 42.
func TestRandomIsJavas(t *testing.T) {
	r := seeded(42)
	require.Equal(t, []int32{-1170105035, 234785527, -1360544799}, []int32{r.word(), r.word(), r.word()})
	r = seeded(42)
	require.Equal(t, []uint32{30, 63, 48}, []uint32{r.intn(100), r.intn(100), r.intn(100)}, "half of the words, as unsigned, by 100")
	r = seeded(42)
	require.Equal(t, 0.7275636800328681, float64(r.fraction())/(1<<53))
}

// The short way to a price rounds as the long one does.
func TestPricesAreThoseOfPow(t *testing.T) {
	r, seeds := seeded(0), rand.New(rand.NewPCG(1, 2))
	for range 300000 {
		r = random(seeds.Uint64())
		long := r
		want := math.Floor(math.Pow(10, float64(long.fraction())/(1<<53)*6)*100 + 0.5)
		require.EqualValues(t, want, r.price())
	}
}
