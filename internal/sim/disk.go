package sim

import (
	"errors"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// errDisk is the failure of a write that was planted.
var errDisk = errors.New("sim: the disk does not take it")

// dir is a worker's state directory. It survives its process, but for what was not synced.
type dir struct {
	world   *World
	number  int
	memory  *vfs.MemFS
	user    *process // nil: nobody has it open
	failing int      // so many writes of image files fail from now on
}

func newDir(w *World, number int) *dir {
	return &dir{world: w, number: number, memory: vfs.NewCrashableMem()}
}

// open gives a process the directory. What a process writes after its death does not reach the next one.
func (d *dir) open() vfs.FS { return &disk{FS: d.memory, dir: d} }

// crash leaves what was synced.
func (d *dir) crash() {
	d.memory = d.memory.CrashClone(vfs.CrashCloneCfg{})
	d.user = nil
}

// disk is a directory as one process sees it.
type disk struct {
	vfs.FS
	dir *dir
}

// Create implements vfs.FS. Files of images, also of merged ones, may fail to be written.
func (d *disk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.Create(name, category)
	if err != nil || d.dir.failing == 0 || !strings.Contains(name, "images/") {
		return f, err
	}
	d.dir.failing--
	return &failingFile{f}, nil
}

// failingFile takes half of what is written.
type failingFile struct{ vfs.File }

// Write implements vfs.File.
func (f *failingFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p[:len(p)/2])
	if err != nil {
		return n, err
	}
	return n, errDisk
}
