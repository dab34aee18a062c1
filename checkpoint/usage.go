package checkpoint

// DiskBytes is what the committed state takes on disk; 0 once the store is closed.
func (s *Store) DiskBytes() uint64 {
	if s.enter() != nil {
		return 0
	}
	defer s.leave()
	return s.db.Metrics().DiskSpaceUsage()
}
