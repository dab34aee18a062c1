package file

import (
	"context"
	"errors"
	"io/fs"
	"time"
)

// DiscoveryInterval implements operator.Growing: it is SourceOptions.Watch.
func (s *Source) DiscoveryInterval() time.Duration { return s.options.Watch }

// Discover implements operator.Growing: it lists the splits of the files that match and are not known. A file is taken when two looks,
// one after the other, have found it with the same length and modification time, so that one that is being written is mostly left
// alone. A file is known by its path, whatever is there now.
func (s *Source) Discover(ctx context.Context, known []string) (splits []string, all bool, err error) {
	o := s.options
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, false, err
	}
	have := make(map[string]bool, len(known))
	for _, identity := range known {
		sp, err := parseSplit(identity)
		if err != nil {
			return nil, false, err
		}
		have[sp.File] = true
	}
	files, err := expandAll(ctx, s.globs, true)
	if err != nil {
		return nil, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	looks := map[string]split{}
	for _, name := range files {
		if have[name] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		whole, err := describe(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // it was there when the directory was read
		case err != nil:
			return nil, false, err
		}
		looks[name] = whole
		if before, seen := s.mu.looks[name]; seen && before == whole {
			splits = append(splits, whole.cut(o.SplitBytes)...)
		}
	}
	s.mu.looks = looks
	return splits, false, nil
}

// cut gives the identities of the splits of a whole file: ranges of so many bytes. An empty file has none.
func (s split) cut(splitBytes int64) (splits []string) {
	if s.Gzip {
		return []string{s.String()}
	}
	for start := int64(0); start < s.Size; {
		part := s
		part.Start, part.End = start, s.Size
		if s.Size-start > splitBytes {
			part.End = start + splitBytes
		}
		splits = append(splits, part.String())
		start = part.End
	}
	return splits
}
