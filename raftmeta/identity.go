package raftmeta

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// identity says whose a directory is: which node of which cluster. Addresses are no part of it.
type identity struct {
	cluster string
	id      string
	peers   []string // Invariant: in order
}

func identityOf(o *Options) identity {
	return identity{cluster: o.Cluster, id: o.ID, peers: idsOf(o.Peers)}
}

// matches says what sets a directory's identity apart from the one that is wanted.
func (have identity) matches(want identity) error {
	switch {
	case have.cluster != want.cluster:
		return fmt.Errorf("%w: it is of cluster %q, not of %q", ErrOtherCluster, have.cluster, want.cluster)
	case have.id != want.id:
		return fmt.Errorf("%w: it is of node %q, not of %q", ErrOtherCluster, have.id, want.id)
	case !slices.Equal(have.peers, want.peers):
		return fmt.Errorf("%w: it is of %q, not of %q", ErrPeersChanged, have.peers, want.peers)
	}
	return nil
}

// digest is what two nodes compare: cluster and peers.
func (i identity) digest() [sha256.Size]byte {
	i.id = ""
	return sha256.Sum256(i.encode())
}

const (
	identityTitle = "understudy coordinator 1"
	identityFile  = "IDENTITY"
	lockFile      = "LOCK"
	storeDir      = "log"

	// maxIdentity bounds the file: names are quoted, four bytes for each at the most.
	maxIdentity = (maxPeers + 3) * (4*maxName + 16)
)

// encode is the file's text: something that a person can read.
func (i identity) encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\ncluster %q\nnode %q\n", identityTitle, i.cluster, i.id)
	for _, p := range i.peers {
		fmt.Fprintf(&b, "peer %q\n", p)
	}
	fmt.Fprintf(&b, "crc %08x\n", crc32.Checksum(b.Bytes(), castagnoli))
	return b.Bytes()
}

// decodeIdentity is the inverse of encode.
func decodeIdentity(text []byte) (identity, error) {
	var i identity
	lines := strings.Split(string(text), "\n")
	if len(text) > maxIdentity || len(lines) < 5 || lines[0] != identityTitle {
		return i, fmt.Errorf("%w: %s is not one", ErrCorrupt, identityFile)
	}
	for _, line := range lines[1 : len(lines)-2] {
		word, quoted, _ := strings.Cut(line, " ")
		name, err := strconv.Unquote(quoted)
		if err != nil {
			return i, fmt.Errorf("%w: %s: line %q", ErrCorrupt, identityFile, line)
		}
		switch word {
		case "cluster":
			i.cluster = name
		case "node":
			i.id = name
		case "peer":
			i.peers = append(i.peers, name)
		}
	}
	if !bytes.Equal(i.encode(), text) { // the checksum is in there too
		return i, fmt.Errorf("%w: %s was changed", ErrCorrupt, identityFile)
	}
	return i, nil
}

// readIdentity returns the identity of the directory. The error is os.ErrNotExist if it has none.
func readIdentity(fs vfs.FS, dir string) (identity, error) {
	f, err := fs.Open(fs.PathJoin(dir, identityFile))
	if err != nil {
		return identity{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxIdentity+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return identity{}, err
	}
	return decodeIdentity(text)
}

// refuseForeign says no to a directory that holds anything, but not a node's log.
func refuseForeign(fs vfs.FS, dir string) error {
	names, err := fs.List(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("raftmeta: list %s: %w", dir, err)
	}
	if slices.Contains(names, identityFile) {
		return nil
	}
	ours := []string{identityFile, lockFile, progressFile, storeDir}
	for _, name := range names {
		if !slices.Contains(ours, strings.TrimSuffix(name, tempSuffix)) {
			return fmt.Errorf("%w: %s has no %s, but it is not empty: %q", ErrOtherCluster, dir, identityFile, name)
		}
	}
	return nil
}
