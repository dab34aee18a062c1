package checkpoint

import "github.com/cockroachdb/pebble/v2/vfs"

// FS is a file system that a Store, and what stands beside it, is kept on.
type FS = vfs.FS

// OSFS is the operating system's file system.
func OSFS() FS { return vfs.Default }

// MemoryFS is a new file system in memory, for state that need not outlive the process.
func MemoryFS() FS { return vfs.NewMem() }
