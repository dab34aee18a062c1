//go:build !race

package checkpoint

// crashSeeds is how many runs TestStoreCrashes makes.
const crashSeeds = 40
