package vhostvsock

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// handle does what a message asks for, and closes it, even when the guest's memory
// has gone meanwhile. It returns the reply of messages that have one of their own.
func (s *session) handle(m *message) (reply []byte, err error) {
	defer m.close()
	switch m.request {
	case getFeatures:
		return word64(deviceFeatures), nil
	case getProtocolFeatures:
		return word64(protocolFeatures), nil
	case setFeatures:
		return nil, s.setFeatures(m)
	case setProtocolFeatures:
		return nil, s.setProtocolFeatures(m)
	case setOwner, resetOwner:
		return nil, nil // the connection is the owner
	case setMemTable:
		err = s.setMemory(m)
	case getConfig:
		return s.config(m)
	case setVringNum, setVringBase, setVringEnable, getVringBase, setVringAddr,
		setVringKick, setVringCall, setVringErr:
		reply, err = s.handleRing(m)
	default:
		return nil, errors.New("unknown")
	}
	s.settle()
	if s.live {
		// Whatever the guest had ready before is not announced again.
		s.wake(toGuest)
		s.wake(toHost)
	}
	return reply, err
}

func (s *session) setFeatures(m *message) error {
	w, err := m.words(1)
	if err != nil {
		return err
	}
	if w[0]&^uint64(deviceFeatures) != 0 {
		return fmt.Errorf("features %#x were not offered", w[0]&^uint64(deviceFeatures))
	}
	s.features = w[0]
	for i := range s.rings {
		r := &s.rings[i]
		r.mu.Lock()
		r.events = s.features&featureEventIndex != 0
		r.mu.Unlock()
	}
	return nil
}

func (s *session) setProtocolFeatures(m *message) error {
	w, err := m.words(1)
	if err != nil {
		return err
	}
	if w[0]&^uint64(protocolFeatures) != 0 {
		return fmt.Errorf("protocol features %#x were not offered", w[0]&^uint64(protocolFeatures))
	}
	s.protocol = w[0]
	return nil
}

// config reads the configuration space, which is the guest's CID.
func (s *session) config(m *message) ([]byte, error) {
	if len(m.body) < 12 {
		return nil, errShort
	}
	offset := binary.LittleEndian.Uint32(m.body)
	size := binary.LittleEndian.Uint32(m.body[4:])
	space := word64(uint64(s.device.cid))
	if uint64(offset)+uint64(size) > uint64(len(space)) {
		// How the protocol says no here.
		return []byte{}, nil
	}
	return append(m.body[:12:12], space[offset:offset+size]...), nil
}

// setMemory takes another table. The old one is unmapped when nobody can be
// using it.
func (s *session) setMemory(m *message) (err error) {
	if len(m.body) < 8 {
		return errShort
	}
	n := int(binary.LittleEndian.Uint32(m.body))
	if n > maxRegions || n != len(m.fds) {
		return fmt.Errorf("%d regions with %d descriptors", n, len(m.fds))
	}
	w, err := m.words(1 + 4*n)
	if err != nil {
		return err
	}
	next := new(memory)
	for i := range n {
		r := w[1+4*i:]
		if err := next.add(r[0], r[2], r[1], r[3], m.fds[i]); err != nil {
			return errors.Join(fmt.Errorf("region %d: %w", i, err), next.close())
		}
	}
	old := s.swapMemory(next)
	if old != nil {
		return old.close()
	}
	return nil
}

func (s *session) swapMemory(next *memory) (old *memory) {
	s.rings[0].mu.Lock()
	defer s.rings[0].mu.Unlock()
	s.rings[1].mu.Lock()
	defer s.rings[1].mu.Unlock()
	old, s.memory = s.memory, next
	for i := range s.rings {
		r := &s.rings[i]
		if r.memory == nil {
			continue
		}
		if err := r.resolve(next); err != nil {
			s.failRing(r, err)
		}
	}
	return old
}

func (s *session) handleRing(m *message) ([]byte, error) {
	w, err := m.words(1)
	if err != nil {
		return nil, err
	}
	index, number := uint32(w[0]), uint32(w[0]>>32)
	if m.request == setVringKick || m.request == setVringCall || m.request == setVringErr {
		index &= noDescriptor - 1
	}
	if index >= uint32(len(s.rings)) {
		return nil, fmt.Errorf("there is no ring %d", index)
	}
	r := &s.rings[index]
	switch m.request {
	case setVringKick:
		return nil, s.setKick(int(index), m, w[0]&noDescriptor != 0)
	case setVringCall:
		return nil, setNotifier(r, &r.call, m, w[0]&noDescriptor != 0)
	case setVringErr:
		return nil, setNotifier(r, &r.broken, m, w[0]&noDescriptor != 0)
	case getVringBase:
		return s.stop(int(index)), nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.request == setVringEnable {
		r.enabled = number != 0
		return nil, nil
	}
	if r.started {
		return nil, errors.New("the ring is running")
	}
	switch m.request {
	case setVringNum:
		if number == 0 || number > maxRingSize || number&(number-1) != 0 {
			return nil, fmt.Errorf("a ring of %d", number)
		}
		r.size = uint16(number)
	case setVringBase:
		if number > 0xffff {
			return nil, fmt.Errorf("a ring at %d", number)
		}
		r.next = uint16(number)
	case setVringAddr:
		w, err := m.words(4)
		if err != nil {
			return nil, err
		}
		r.descriptorsAt, r.usedAt, r.availAt = w[1], w[2], w[3]
	}
	return nil, nil
}

// setKick starts a ring.
func (s *session) setKick(i int, m *message, none bool) error {
	if none {
		return errors.New("a ring without kicks, which we do not poll")
	}
	fd, err := m.take()
	if err != nil {
		return err
	}
	file, err := newKick(fd)
	if err != nil {
		return err
	}
	s.stopKick(i)
	if err := s.start(&s.rings[i]); err != nil {
		file.Close()
		return err
	}
	s.startKick(i, file)
	return nil
}

func (s *session) start(r *ring) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.resolve(s.memory); err != nil {
		return err
	}
	r.started, r.fault = true, nil
	if s.features&featureProtocolFeatures == 0 {
		r.enabled = true // nobody will say so
	}
	return nil
}

// stop ends the use of a ring and tells where it stopped.
func (s *session) stop(i int) []byte {
	r := &s.rings[i]
	r.mu.Lock()
	r.started = false
	next := r.next
	r.mu.Unlock()
	s.stopKick(i)
	return word64(uint64(i) | uint64(next)<<32)
}

func setNotifier(r *ring, to **notifier, m *message, none bool) error {
	var n *notifier
	if !none {
		fd, err := m.take()
		if err != nil {
			return err
		}
		if n, err = newNotifier(fd); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	(*to).close()
	*to = n
	if to == &r.call && r.started {
		n.notify() // in case that the old one was not heard any more
	}
	return nil
}
