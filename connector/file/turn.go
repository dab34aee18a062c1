package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A turn is the right to add and replace files of a part. It is a folder whose name is the turn's number, and in it, under the same number,
// the turn's pen: the folder in which files are made before they are moved to where they count. There is one turn of a part, and a Fence
// takes the next one by renaming the folder, which only one can do. From then on whoever had the turn before can bring in no file
// from its pen, however long it was stopped, since no path leads there; and once the Fence has removed that pen, not even a handle
// to it is of use, as a network file system may keep one. No lock is needed for that, and no clock.
//
// What remains is what a former holder has open. A segment counts up to the length that the Fence read. An output file that may be open
// has a mark in the pen from before it was opened, and the Fence puts a copy in its place, unless a lock tells that nobody writes.
//
// Invariant: files of the part are made, replaced, and removed by moving them out of or into the pen, and opened to be appended to only
// before the last look at whether the pen is there.

// errTurn says that somebody else took the turn, so that one has to look again.
var errTurn = errors.New("file: the turn was taken by somebody else")

const markPrefix = "open-" // the rest is the stream's folder

func (p *part) turns() string { return filepath.Join(p.hidden, p.name+".turn") }

func turnName(turn uint64) string { return fmt.Sprintf("%06d", turn) }

// pen is where the holder of a turn makes files.
func (p *part) pen(turn uint64) string {
	return filepath.Join(p.turns(), turnName(turn), turnName(turn))
}

func (p *part) mark(turn uint64, folder string) string {
	return filepath.Join(p.pen(turn), markPrefix+folder)
}

// holds tells whether a turn is still the present one.
func (p *part) holds(turn uint64) (bool, error) {
	ok, err := exists(p.pen(turn))
	if err != nil {
		return false, fmt.Errorf("file: %w", err)
	}
	return ok, nil
}

// present gives the number of the turn. The first one is made here.
func (p *part) present() (uint64, error) {
	for range 2 {
		numbers, err := numbered(p.turns())
		if err != nil {
			return 0, err
		}
		if len(numbers) > 0 {
			highest := numbers[0]
			for _, n := range numbers {
				highest = max(highest, n)
			}
			return highest, nil
		}
		if err := p.firstTurn(); err != nil {
			return 0, err
		}
	}
	return 0, errTurn // it is being renamed at this moment
}

// firstTurn makes turn 0, without a pen. The folder of the turn comes to be with the turn in it and is never empty, so that it cannot come to be twice.
func (p *part) firstTurn() error {
	temporary, err := os.MkdirTemp(p.hidden, p.name+".turn.new-")
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	err = os.Mkdir(filepath.Join(temporary, turnName(0)), 0o777)
	if err == nil {
		err = p.disk.Rename(temporary, p.turns())
	}
	if errors.Is(err, os.ErrExist) { // somebody else has made it
		err = os.RemoveAll(temporary)
	} else if err != nil {
		err = errors.Join(err, os.RemoveAll(temporary))
	}
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	return nil
}

// advance takes the next turn, which still has the pen of the one before.
func (p *part) advance() (uint64, error) {
	before, err := p.present()
	if err != nil {
		return 0, err
	}
	turn := before + 1
	err = p.disk.Rename(filepath.Join(p.turns(), turnName(before)), filepath.Join(p.turns(), turnName(turn)))
	if errors.Is(err, os.ErrNotExist) {
		return 0, errTurn
	}
	if err != nil {
		return 0, fmt.Errorf("file: %w", err)
	}
	return turn, nil
}

// takePen replaces the pens of former turns. When it returns, no file of the part comes or goes any more but from the new pen, and that has
// marks for all output files that a former holder may have open.
func (p *part) takePen(ctx context.Context, turn uint64) error {
	if err := p.disk.Mkdir(p.pen(turn)); err != nil {
		return fmt.Errorf("file: %w", err)
	}
	if p.options.Sync {
		if err := p.disk.SyncDir(p.turns()); err != nil {
			return fmt.Errorf("file: %w", err)
		}
	}
	to := filepath.Dir(p.pen(turn))
	pens, err := numbered(to)
	if err != nil {
		return err
	}
	for _, n := range pens {
		if n == turn {
			continue
		}
		if err := p.clear(ctx, turn, filepath.Join(to, turnName(n))); err != nil {
			return err
		}
	}
	return nil
}

// clear removes a former pen, and takes over its marks before. A former holder that still has a handle to it may add to it until it is gone.
func (p *part) clear(ctx context.Context, turn uint64, pen string) error {
	for {
		entries, err := os.ReadDir(pen)
		if err != nil {
			return fmt.Errorf("file: %w", err)
		}
		for _, e := range entries {
			if folder, ok := strings.CutPrefix(e.Name(), markPrefix); ok {
				if err := p.touch(p.mark(turn, folder)); err != nil {
					return err
				}
			}
			if err := p.disk.Remove(filepath.Join(pen, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("file: %w", err)
			}
		}
		err = p.disk.Remove(pen)
		if err == nil {
			return nil
		}
		if !errors.Is(err, os.ErrExist) || ctx.Err() != nil { // os.ErrExist: there is something in it again
			return fmt.Errorf("file: %w", errors.Join(err, ctx.Err()))
		}
	}
}

// touch makes an empty file, or finds one.
func (p *part) touch(name string) error {
	f, err := p.disk.Open(name, os.O_RDWR|os.O_CREATE)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	return nil
}

// marked lists the streams of which a file may be open.
func (p *part) marked(turn uint64) ([]string, error) {
	entries, err := os.ReadDir(p.pen(turn))
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	var folders []string
	for _, e := range entries {
		if folder, ok := strings.CutPrefix(e.Name(), markPrefix); ok {
			folders = append(folders, folder)
		}
	}
	return folders, nil
}

// dispossess takes the output away from writers that may still have it open. What they still show in the old files before they are replaced
// has its frame in the sidecar by then, since a frame comes first, so that the new incarnation shows it again, byte for byte. What they
// store after the sidecar was read is beyond the sealed length, and its lines go to the old files. If idle, a lock tells that nobody is in the
// middle of a write, and whoever had the turn looks for it before the next one: then the files may stay.
func (p *part) dispossess(turn uint64, idle bool) error {
	folders, err := p.marked(turn)
	if err != nil {
		return err
	}
	for _, folder := range folders {
		if !idle {
			files, err := p.files(folder)
			if err != nil {
				return err
			}
			if len(files) > 0 {
				if err := p.replace(turn, folder, files[len(files)-1].name, -1); err != nil {
					return err
				}
			}
		}
		if err := p.disk.Remove(p.mark(turn, folder)); err != nil {
			return fmt.Errorf("file: %w", err)
		}
	}
	return nil
}

// numbered lists the entries of a folder that are numbers. There may be no folder.
func numbered(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("file: %w", err)
	}
	var numbers []uint64
	for _, e := range entries {
		if n, err := strconv.ParseUint(e.Name(), 10, 64); err == nil {
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}
