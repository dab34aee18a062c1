package raftmeta

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// A connection between two nodes opens with a preface of the one that dials: who it is, whom it wants, and what it takes
// the cluster to be. Two nodes that differ in that would count votes differently; one that is reached under another's address would
// be counted twice. The other node answers with one byte. Raft's own bytes follow.

const (
	prefaceMagic   = "USRM\x01"
	prefaceTimeout = 2 * time.Second
	maxPreface     = len(prefaceMagic) + sha256.Size + 2*(1+maxName)
)

// Answers to a preface.
const (
	answerWelcome = 'w'
	answerCluster = 'c' // another cluster, or other peers
	answerNode    = 'n' // this is not the node that was wanted, or none of the peers calls itself so
)

// errPreface: the other side of a connection is not a node of this cluster.
var errPreface = errors.New("raftmeta: not a node of this cluster")

func appendPreface(digest [sha256.Size]byte, from, to string) []byte {
	b := append([]byte(prefaceMagic), digest[:]...)
	b = append(b, byte(len(from)))
	b = append(b, from...)
	b = append(b, byte(len(to)))
	return append(b, to...)
}

// readPreface reads not a byte more than a preface has.
func readPreface(r io.Reader) (digest [sha256.Size]byte, from, to string, err error) {
	head := make([]byte, len(prefaceMagic)+sha256.Size)
	if _, err = io.ReadFull(r, head); err != nil {
		return digest, "", "", fmt.Errorf("%w: %w", errPreface, err)
	}
	if !bytes.HasPrefix(head, []byte(prefaceMagic)) {
		return digest, "", "", fmt.Errorf("%w: it begins with %x", errPreface, head[:len(prefaceMagic)])
	}
	copy(digest[:], head[len(prefaceMagic):])
	for _, name := range []*string{&from, &to} {
		var size [1]byte
		if _, err = io.ReadFull(r, size[:]); err != nil {
			return digest, "", "", fmt.Errorf("%w: %w", errPreface, err)
		}
		b := make([]byte, size[0])
		if _, err = io.ReadFull(r, b); err != nil {
			return digest, "", "", fmt.Errorf("%w: %w", errPreface, err)
		}
		*name = string(b)
	}
	return digest, from, to, nil
}

// greet sends the preface and reads the answer.
func greet(conn net.Conn, digest [sha256.Size]byte, from, to string) error {
	if err := conn.SetDeadline(time.Now().Add(prefaceTimeout)); err != nil {
		return fmt.Errorf("raftmeta: greet %s: %w", to, err)
	}
	if _, err := conn.Write(appendPreface(digest, from, to)); err != nil {
		return fmt.Errorf("raftmeta: greet %s: %w", to, err)
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return fmt.Errorf("raftmeta: greet %s: %w", to, err)
	}
	switch answer[0] {
	case answerWelcome:
		return conn.SetDeadline(time.Time{})
	case answerCluster:
		return fmt.Errorf("%w: what answers for %q has another cluster's name or other peers", errPreface, to)
	}
	return fmt.Errorf("%w: what answers for %q is another node", errPreface, to)
}

// welcome reads a preface and answers it. It returns the ID of the node at the other end.
func welcome(conn net.Conn, digest [sha256.Size]byte, self string, known func(id string) bool) (from string, err error) {
	if err := conn.SetDeadline(time.Now().Add(prefaceTimeout)); err != nil {
		return "", fmt.Errorf("raftmeta: welcome: %w", err)
	}
	theirs, from, to, err := readPreface(conn)
	if err != nil {
		return "", err
	}
	answer := byte(answerWelcome)
	switch {
	case theirs != digest:
		answer, err = answerCluster, fmt.Errorf("%w: %q has another cluster's name or other peers", errPreface, from)
	case to != self:
		answer, err = answerNode, fmt.Errorf("%w: %q wants %q", errPreface, from, to)
	case from == self || !known(from):
		answer, err = answerNode, fmt.Errorf("%w: %q is no other peer", errPreface, from)
	}
	if _, werr := conn.Write([]byte{answer}); werr != nil && err == nil {
		err = fmt.Errorf("raftmeta: welcome %q: %w", from, werr)
	}
	if err != nil {
		return "", err
	}
	return from, conn.SetDeadline(time.Time{})
}
