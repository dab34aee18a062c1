// Command ownsink has a source and a causal sink of its own, and kills its tasks meanwhile:
//
//	go run ./examples/ownsink
//
// The source can read each split again from any offset that it gave; that is all a source must do.
//
// The sink is a table in memory, in the place of a database that all workers reach. It is causal: to the engine it is one
// more neighbour of the task that writes to it, one that never dies and holds determinants like any other. Three rules make
// it so, and with a database each is one transaction:
//
//   - What the rows depend on is stored before, or together with, the rows.
//   - Fence ends the writing of every earlier incarnation before it says what is there.
//   - A cut takes back everything after a checkpoint, rows and determinants alike.
package main
