package transport

// Limits are what a decoder of messages accepts: ids must be below them.
type Limits struct {
	Tasks    int
	Channels int
}

// AppendMessage appends the frames of a message, as a link carries them. The error is ErrTooLong.
func AppendMessage(dst []byte, m *Message) ([]byte, error) { return nil, ErrTooLong }

// DecodeMessage reads one message from the frames at the start of src and returns what follows. The message aliases src. The
// error is ErrCorrupt.
func DecodeMessage(src []byte, l Limits) (m *Message, rest []byte, err error) { return nil, nil, ErrCorrupt }
