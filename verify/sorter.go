package verify

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
)

const (
	// MaxRecord is the longest record, key and value together, in bytes, that a Sorter takes.
	MaxRecord = 8 << 10

	maxFrame   = MaxRecord + 2*binary.MaxVarintLen32 // a record with its two lengths
	firstBlock = 1 << 20                             // a sorter that is given little stays small
	blockGrows = 4                                   // by this factor, until it is half the budget
)

// SorterOptions are the settings of a Sorter.
type SorterOptions struct {
	// Memory is the budget in bytes; 0 means DefaultMemory. It must be at least MinMemory/4.
	Memory int64
	// TempDir is where runs go; empty means os.TempDir.
	TempDir string
	// ByValue orders the records of one key by the bytes of their values. Without it they keep the order in which they were
	// added.
	ByValue bool
}

// Sorter brings records with equal keys together, in bounded memory, however many there are.
//
// It is an external merge sort (Knuth, The Art of Computer Programming, volume 3, section 5.4): records gather in a block; a
// full block is sorted and written to a temporary file as a run; at the end the runs are merged. Keys are ordered by their
// hash, then by their bytes, so that a comparison is nearly always one of two numbers.
//
// Add any number of records, then call Merge once, then Close. A Sorter belongs to one goroutine.
type Sorter struct {
	opt       SorterOptions
	blockSize int
	filling   *block
	blocks    int // how many exist; two at most
	memory    accountedMemory
	records   int64

	// nil until the first block of full size is full. Then the other block is with it, or on its way back.
	spiller *spiller
}

// Record is one record as Merge hands it out. Its bytes are valid until the function that it is handed to returns.
type Record struct {
	Key   []byte
	Value []byte
	First bool // no record with this key came before
}

// NewSorter returns an empty sorter.
func NewSorter(opt SorterOptions) (*Sorter, error) {
	if opt.Memory == 0 {
		opt.Memory = DefaultMemory
	}
	if opt.Memory < MinMemory/4 {
		return nil, fmt.Errorf("verify: sorter memory of %d bytes is below the least of %d", opt.Memory, MinMemory/4)
	}
	s := &Sorter{opt: opt}
	// Two blocks and the buffer through which runs are written make up the budget. Offsets in a block have 32 bits.
	s.blockSize = int(min(opt.Memory/2-opt.Memory/32, 2<<30))
	return s, nil
}

// Peak returns the most memory that the sorter has held at once, in bytes.
func (s *Sorter) Peak() int64 { return s.memory.peak }

// Runs returns how many sorted runs were written to disk. Call it after Merge.
func (s *Sorter) Runs() int {
	if s.spiller == nil {
		return 0
	}
	return len(s.spiller.spans)
}

// Records returns how many records were added.
func (s *Sorter) Records() int64 { return s.records }

// Add adds a record. It copies key and value.
func (s *Sorter) Add(key, value []byte) error {
	if len(key)+len(value) > MaxRecord {
		return fmt.Errorf("verify: record of %d bytes is longer than %d", len(key)+len(value), MaxRecord)
	}
	s.records++
	if s.filling == nil {
		s.filling = s.newBlock(min(firstBlock, s.blockSize))
	}
	rank := rank(key)
	if s.filling.add(rank, key, value) {
		return nil
	}
	if err := s.makeRoom(); err != nil {
		return err
	}
	if !s.filling.add(rank, key, value) {
		panic("verify: a record does not fit in an empty block")
	}
	return nil
}

// makeRoom grows the block that is full, or sends it to the spiller and takes an empty one.
func (s *Sorter) makeRoom() error {
	if size := s.filling.size; size < s.blockSize {
		grown := s.newBlock(min(size*blockGrows, s.blockSize))
		grown.copyFrom(s.filling)
		s.memory.add(-int64(size))
		s.filling = grown
		s.blocks--
		return nil
	}
	if s.spiller == nil {
		buffer := max(int(s.opt.Memory)/16, maxFrame)
		spiller, err := newSpiller(s.opt.TempDir, min(buffer, mergeSlice), s.opt.ByValue)
		if err != nil {
			return err
		}
		s.memory.add(int64(len(spiller.buf)))
		s.spiller = spiller
	}
	s.spiller.full <- s.filling
	s.filling = nil
	if s.blocks < 2 {
		s.filling = s.newBlock(s.blockSize)
		return s.spiller.failed()
	}
	s.filling = <-s.spiller.empty
	return s.spiller.failed()
}

func (s *Sorter) newBlock(size int) *block {
	s.memory.add(int64(size))
	s.blocks++
	return newBlock(size)
}

// Merge calls fn for every record, records with equal keys one after the other. It can be called once.
func (s *Sorter) Merge(ctx context.Context, fn func(Record) error) error {
	if s.spiller == nil {
		return s.mergeMemory(fn)
	}
	s.spiller.full <- s.filling
	s.filling = nil
	spans, err := s.spiller.finish()
	if err != nil {
		return err
	}
	m := merger{ctx: ctx, byValue: s.opt.ByValue, file: s.spiller.file, tempDir: s.opt.TempDir, out: s.spiller.buf}
	for range s.blocks {
		m.buffers = append(m.buffers, (<-s.spiller.empty).arena)
	}
	err = m.merge(spans, fn)
	s.spiller.file = m.file
	return err
}

// mergeMemory hands out the records when they all fit in one block.
func (s *Sorter) mergeMemory(fn func(Record) error) error {
	if s.filling == nil {
		return nil
	}
	b := s.filling
	b.sort(s.opt.ByValue)
	var last []byte
	for i := range b.entries {
		key, value := b.record(b.entries[i])
		first := i == 0 || !bytes.Equal(key, last)
		last = key
		if err := fn(Record{key, value, first}); err != nil {
			return err
		}
	}
	return nil
}

// Close frees the memory and removes the temporary file. It may be called at any time, more than once.
func (s *Sorter) Close() error {
	s.filling = nil
	if s.spiller == nil {
		return nil
	}
	return s.spiller.close()
}

// accountedMemory adds up what a sorter holds.
type accountedMemory struct{ held, peak int64 }

func (m *accountedMemory) add(n int64) {
	m.held += n
	m.peak = max(m.peak, m.held)
}
