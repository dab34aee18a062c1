//go:build !race

package raftmeta

const crashSeeds = 40
