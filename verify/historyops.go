package verify

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// historyReader turns EDN values into operations.
type historyReader struct {
	ops   []historyOp
	texts map[string]string // each text once
}

// add takes the next value of a history.
func (h *historyReader) add(v any) error {
	for {
		tagged, ok := v.(ednTagged) // as #jepsen.history.Op{…}
		if !ok {
			break
		}
		v = tagged.value
	}
	m, ok := v.(ednMap)
	if !ok {
		return fmt.Errorf("%s is not an operation", shorten(ednText(v)))
	}
	op := historyOp{place: len(h.ops)}
	if op.typ = word(m, "type"); !slices.Contains([]string{"invoke", "ok", "fail", "info"}, op.typ) {
		return fmt.Errorf("operation with the type %q, which is not invoke, ok, fail or info", op.typ)
	}
	if op.f = h.intern(word(m, "f")); op.f == "" {
		return errors.New("operation without f")
	}
	op.process = h.intern(word(m, "process"))
	op.index = word(m, "index")
	body, _ := m.get("value")
	var err error
	switch {
	case op.process == "":
		err = errors.New("operation without process")
	case op.transacts():
		op.mops, err = h.microOps(body)
	case op.f == "assign" || op.f == "subscribe":
		op.keys, err = h.keyList(body)
	}
	if err == nil {
		op.moved, err = h.rebalanced(m)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", op.name(), err)
	}
	h.ops = append(h.ops, op)
	return nil
}

func (h *historyReader) intern(s string) string {
	if t, ok := h.texts[s]; ok {
		return t
	}
	h.texts[s] = s
	return s
}

// word returns the plain text of a keyword, string or number in a map; empty if it is not there.
func word(m ednMap, name string) string {
	v, ok := m.get(name)
	if !ok {
		return ""
	}
	return plainText(v)
}

// plainText is the text of a name, whether it is written as a keyword, a symbol, a string or a number.
func plainText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case ednKeyword:
		return string(v)
	case ednSymbol:
		return string(v)
	}
	return ednText(v)
}

// key returns a key. In JSON a key is a number here and a string there, so it is its plain text that counts.
func (h *historyReader) key(v any) string { return h.intern(plainText(v)) }

func (h *historyReader) keyList(v any) ([]string, error) {
	if set, ok := v.(ednSet); ok {
		v = []any(set)
	}
	list, ok := v.([]any)
	if !ok && v != nil {
		return nil, fmt.Errorf("%s is not a list of keys", shorten(ednText(v)))
	}
	var keys []string
	for _, k := range list {
		keys = append(keys, h.key(k))
	}
	return keys, nil
}

// rebalanced collects the keys of an operation's rebalance log.
func (h *historyReader) rebalanced(m ednMap) (map[string]bool, error) {
	v, ok := m.get("rebalance-log")
	if !ok || v == nil {
		return nil, nil
	}
	events, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("rebalance-log %s is not a list", shorten(ednText(v)))
	}
	moved := map[string]bool{}
	for _, e := range events {
		event, ok := e.(ednMap)
		if !ok {
			return nil, fmt.Errorf("%s is not a rebalance event", shorten(ednText(e)))
		}
		body, _ := event.get("keys")
		keys, err := h.keyList(body)
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			moved[k] = true
		}
	}
	return moved, nil
}

func (h *historyReader) microOps(v any) ([]microOp, error) {
	list, ok := v.([]any)
	if !ok && v != nil {
		return nil, fmt.Errorf("%s is not a list of sends and polls", shorten(ednText(v)))
	}
	var mops []microOp
	for _, e := range list {
		mop, ok := e.([]any)
		if !ok || len(mop) == 0 {
			return nil, fmt.Errorf("%s is not a send or poll", shorten(ednText(e)))
		}
		var m microOp
		var err error
		switch name := plainText(mop[0]); {
		case name == "send" && len(mop) == 3:
			m, err = h.send(mop[1], mop[2])
		case name == "poll" && len(mop) == 1:
		case name == "poll" && len(mop) == 2:
			m, err = h.poll(mop[1])
		default:
			return nil, fmt.Errorf("%s is not a send or poll", shorten(ednText(e)))
		}
		if err != nil {
			return nil, err
		}
		mops = append(mops, m)
	}
	return mops, nil
}

// send reads a send, whose value is a pair with the offset once that may be known.
func (h *historyReader) send(key, v any) (microOp, error) {
	m := microOp{send: true, key: h.key(key)}
	pair, ok := v.([]any)
	if !ok {
		m.sent = message{h.intern(ednText(v)), -1}
		return m, nil
	}
	var err error
	m.sent, err = h.message(pair)
	return m, err
}

func (h *historyReader) message(pair []any) (message, error) {
	if len(pair) != 2 {
		return message{}, fmt.Errorf("%s is not a pair of offset and value", shorten(ednText(pair)))
	}
	msg := message{h.intern(ednText(pair[1])), -1}
	if pair[0] == nil {
		return msg, nil
	}
	number, _ := pair[0].(ednNumber)
	offset, err := strconv.ParseInt(string(number), 10, 64)
	if err != nil || offset < 0 {
		return message{}, fmt.Errorf("%s is not an offset", shorten(ednText(pair[0])))
	}
	msg.offset = offset
	return msg, nil
}

// poll reads what a poll returned: per key a list of pairs.
func (h *historyReader) poll(v any) (microOp, error) {
	keys, ok := v.(ednMap)
	if !ok && v != nil {
		return microOp{}, fmt.Errorf("%s is not a map of keys", shorten(ednText(v)))
	}
	all := map[string][]message{}
	for _, entry := range keys {
		key := h.key(entry.key)
		pairs, ok := entry.value.([]any)
		if !ok && entry.value != nil {
			return microOp{}, fmt.Errorf("key %s has %s, not a list of pairs", key, shorten(ednText(entry.value)))
		}
		for _, p := range pairs {
			pair, ok := p.([]any)
			if !ok {
				return microOp{}, fmt.Errorf("%s is not a pair of offset and value", shorten(ednText(p)))
			}
			msg, err := h.message(pair)
			if err != nil {
				return microOp{}, err
			}
			all[key] = append(all[key], msg)
		}
	}
	return microOp{polled: sortedPolls(all)}, nil
}
