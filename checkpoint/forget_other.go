//go:build !linux

package checkpoint

import "github.com/cockroachdb/pebble/v2/vfs"

// forget does nothing: there is no portable way to say it.
func forget(vfs.File) {}
