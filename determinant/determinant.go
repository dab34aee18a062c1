package determinant

// Kind says which choice a determinant records.
type Kind uint8

// The kinds of choice. The numbers are the tags of the byte format and never change.
const (
	KindNone           Kind = 0
	KindInput          Kind = 1  // take the next N elements of input Channel
	KindSource         Kind = 2  // take the next N records of split Split, up to offset Offset
	KindTimers         Kind = 3  // processing time advances to Time; every timer due fires
	KindCheckpoint     Kind = 4  // a source emits barrier Epoch here; the next epoch has Mode and Depth
	KindSkipCheckpoint Kind = 5  // a source emits skip Epoch instead of barrier Epoch, or another task waits no longer for the barriers of Epoch; else like Checkpoint
	KindAsync          Kind = 6  // the Pending-th outstanding external call completes with Bytes (or failed)
	KindTime           Kind = 7  // first clock reading in this step: Time
	KindRandom         Kind = 8  // Seed for this epoch's generator
	KindCall           Kind = 9  // result of a synchronous external call: Hash of the request, Bytes (or failed)
	KindSplit          Kind = 10 // split Split was added (Bytes is its identity) or Removed
	KindSkip           Kind = 11 // the record at (Channel, Seq) was set aside as poison
	KindMark           Kind = 12 // epoch Epoch starts here; not a choice, delta coding restarts
)

// NoSplit is the Split of a removal that says: no split is left and none will come.
const NoSplit = ^uint32(0)

// Determinant is one recorded choice. Kind says which of the fields count; the others are zero.
//
// It is one struct and not an interface with a type per kind because the step loop makes one per batch and must not
// allocate.
type Determinant struct {
	Kind    Kind
	Channel uint32 // Input, Skip: index among the task's input channels. A source's Skip has its split here
	Split   uint32 // Source, Split: index among the splits the task was given
	N       uint64 // Input, Source: number of elements
	Offset  uint64 // Source: offset in the split after the N records
	Time    int64  // Timers, Time: milliseconds since the Unix epoch
	Epoch   Epoch  // Checkpoint, SkipCheckpoint, Mark
	Mode    Mode   // Checkpoint, SkipCheckpoint: mode of the next epoch
	Depth   Depth  // Checkpoint, SkipCheckpoint: sharing depth of the next epoch
	Pending uint32 // Async: position among the outstanding calls, in order of issue
	Hash    uint64 // Async, Call: hash of the request
	Bytes   []byte // Async, Call: the result, or the error's text if Failed. Split: the identity of an added split
	Failed  bool   // Async, Call: the call returned an error. Skip: the record was processed, and that failed
	Seq     Seq    // Skip: sequence number of the record. A source's Skip has the offset of the record's start here
	Seed    uint64 // Random
	Removed bool   // Split: removed, not added
}
