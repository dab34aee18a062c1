//go:build race

package checkpoint

// crashSeeds is small with the race detector on: Pebble then checks itself at every turn.
const crashSeeds = 2
