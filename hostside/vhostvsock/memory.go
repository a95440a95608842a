package vhostvsock

import (
	"errors"
	"fmt"
	"math"
)

// maxRegions is what a table may have without further protocol features.
const maxRegions = 8

// region is one piece of the guest's memory: where the guest has it, where the
// program that runs the guest has it, and where we do.
type region struct {
	guest, user uint64
	data        []byte
	unmap       func() error
}

// memory is the guest's memory. It never changes; a new table is a new memory.
// The guest may write to it at any time, so what is read from it is copied
// before it is checked.
type memory struct {
	regions []region
}

func (m *memory) add(guest, user, size, offset uint64, fd int) error {
	switch {
	case size == 0 || size > math.MaxInt64 || offset > math.MaxInt64-size:
		return fmt.Errorf("a region of %d bytes at offset %d", size, offset)
	case guest+size < guest || user+size < user:
		return fmt.Errorf("a region of %d bytes wraps", size)
	}
	for i := range m.regions {
		r := &m.regions[i]
		if guest < r.guest+uint64(len(r.data)) && r.guest < guest+size {
			return fmt.Errorf("regions overlap at %#x", max(guest, r.guest))
		}
	}
	data, unmap, err := mapShared(fd, offset, size)
	if err != nil {
		return fmt.Errorf("map %d bytes: %w", size, err)
	}
	m.regions = append(m.regions, region{guest: guest, user: user, data: data, unmap: unmap})
	return nil
}

func (m *memory) close() error {
	var errs []error
	for i := range m.regions {
		errs = append(errs, m.regions[i].unmap())
	}
	m.regions = nil
	return errors.Join(errs...)
}

// slices appends the memory that the guest knows as size bytes from address. It
// may lie in several regions.
func (m *memory) slices(to [][]byte, address, size uint64) ([][]byte, bool) {
	if m == nil {
		return to, false
	}
	for size > 0 {
		r := m.find(address)
		if r == nil {
			return to, false
		}
		part := r.data[address-r.guest:]
		if uint64(len(part)) > size {
			part = part[:size]
		}
		to = append(to, part)
		address += uint64(len(part)) // cannot wrap: no region does
		size -= uint64(len(part))
	}
	return to, true
}

func (m *memory) find(address uint64) *region {
	for i := range m.regions {
		if r := &m.regions[i]; address >= r.guest && address-r.guest < uint64(len(r.data)) {
			return r
		}
	}
	return nil
}

// user is the memory that the program which runs the guest knows as size bytes
// from address. It lies in one region.
func (m *memory) user(address, size uint64) ([]byte, bool) {
	if m == nil {
		return nil, false
	}
	for i := range m.regions {
		r := &m.regions[i]
		if address < r.user {
			continue
		}
		if at := address - r.user; at < uint64(len(r.data)) && size <= uint64(len(r.data))-at {
			return r.data[at : at+size : at+size], true
		}
	}
	return nil, false
}
