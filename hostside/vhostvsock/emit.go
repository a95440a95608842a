package vhostvsock

import "syscall"

// This file is the part of a connection that decides what the guest is told
// next. Nothing but data is queued: the rest are flags, so that a guest which
// does not read costs the host no memory.

// tell queues the connection when the guest may wait for credit.
func (c *Conn) tell() {
	if c.phase == open && c.guestShut&shutSend == 0 && c.receive.due(c.send.allocated) {
		c.updateDue = true
		c.device.queue.add(c)
	}
}

// reset takes the connection from the guest, which is told unless it cannot know
// of it. The table keeps it until then, so that its ports are not used again.
func (c *Conn) reset(why error) {
	if c.phase == gone {
		return
	}
	if c.phase == dialing && !c.requested {
		c.leave(why)
		return
	}
	c.resetDue = true
	c.forget(why)
	c.device.queue.add(c)
}

// leave is reset without telling the guest.
func (c *Conn) leave(why error) {
	c.resetDue = false
	c.forget(why)
	c.device.queue.remove(c)
	c.device.remove(c)
}

func (c *Conn) forget(why error) {
	if c.phase != gone {
		if c.phase == dialing {
			close(c.answered)
		}
		c.phase, c.err = gone, why
	}
	c.out.clear()
	c.stopAsking()
	c.stopLinger()
	c.wake()
}

// mayWrite reports whether data can go to the guest.
func (c *Conn) mayWrite() bool {
	return c.phase == open && c.guestShut&shutReceive == 0 && c.out.size > 0
}

// shutDue is what the guest has to hear by opShutdown now: that we end sending
// only after all data.
func (c *Conn) shutDue() uint32 {
	due := c.shut
	if c.mayWrite() {
		due &^= shutSend
	}
	if c.phase != open || due&^c.shutTold == 0 {
		return 0
	}
	return due
}

// emit puts the next packet for the guest into a chain of at least headerBytes.
// It returns its length, zero when there is nothing to say, and whether there is
// more.
func (c *Conn) emit(to *chain) (length uint32, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := header{
		sourceCID: hostCID, destinationCID: uint64(c.device.cid),
		sourcePort: c.key.host, destinationPort: c.key.guest,
		kind:      typeStream,
		allocated: windowBytes, forwarded: c.receive.forwarded,
	}
	if !c.next(&h, to.left-headerBytes) {
		return 0, false
	}
	var b [headerBytes]byte
	h.encode(&b)
	to.write(b[:])
	for left := int(h.length); left > 0; {
		part := c.out.front(left)
		to.write(part)
		left -= len(part)
		c.out.discard(len(part))
	}
	if h.op == opReset {
		c.device.remove(c)
		return headerBytes, false
	}
	c.receive.told = h.forwarded
	c.updateDue = false
	if c.writers > 0 && c.out.size <= sendBytes/2 {
		c.writable.Broadcast()
	}
	return headerBytes + h.length, c.pending()
}

// next chooses the packet. A connection that the guest opened hears opResponse
// before anything else.
func (c *Conn) next(h *header, room uint64) bool {
	switch {
	case c.resetDue:
		c.resetDue = false
		h.op = opReset
		return true
	case c.phase == gone:
		return false
	case c.phase == dialing:
		if !c.requestDue {
			return false
		}
		c.requestDue, c.requested = false, true
		h.op = opRequest
		return true
	case c.responseDue:
		c.responseDue = false
		h.op = opResponse
		return true
	}
	if c.mayWrite() && room > 0 {
		if n := c.send.room(c.out.size); n > 0 {
			n = int(min(uint64(n), room))
			c.send.take(n)
			h.op, h.length = opRW, uint32(n)
			return true
		}
		c.startAsking()
	}
	if due := c.shutDue(); due != 0 {
		c.shutTold |= due
		h.op, h.flags = opShutdown, due
		return true
	}
	switch {
	case c.updateDue:
		h.op = opCreditUpdate
	case c.askDue:
		c.askDue = false
		h.op = opCreditRequest
	default:
		return false
	}
	return true
}

// pending reports whether next would have something now, or needs a look.
func (c *Conn) pending() bool {
	return c.mayWrite() && (c.asking.timer == nil || c.send.room(c.out.size) > 0) ||
		c.shutDue() != 0 || c.updateDue || c.askDue
}

// handle takes a packet of the guest. It reports false when the packet has no
// place in the connection and the guest is to be answered by opReset.
func (c *Conn) handle(h *header, payload *chain) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == gone {
		return true // opReset is under way
	}
	if c.send.update(h.allocated, h.forwarded) {
		c.stopAsking()
		if c.mayWrite() {
			c.device.queue.add(c)
		}
	}
	c.tell() // the size of the guest's buffer counts, too
	switch {
	case h.op == opReset:
		c.handleReset()
		return true
	case c.phase == dialing:
		if h.op != opResponse {
			break
		}
		c.phase, c.accepted = open, true
		close(c.answered)
		return true
	case h.op == opRW:
		if !c.store(h, payload) {
			break
		}
		return true
	case h.op == opShutdown:
		c.handleShutdown(h.flags)
		return true
	case h.op == opCreditUpdate:
		return true
	case h.op == opCreditRequest:
		c.updateDue = true
		c.device.queue.add(c)
		return true
	}
	c.leave(syscall.ECONNRESET)
	return false
}

func (c *Conn) handleReset() {
	switch {
	case c.phase == dialing:
		c.leave(syscall.ECONNREFUSED)
	case c.guestShut == shutBoth || c.shutTold == shutBoth:
		c.leave(nil) // the answer to the end of both directions
	default:
		c.leave(syscall.ECONNRESET)
	}
}

// store takes the guest's data, unless it is more than the guest may send, or
// less than it says.
func (c *Conn) store(h *header, payload *chain) bool {
	if c.guestShut&shutSend != 0 || uint64(h.length) > payload.left {
		return false
	}
	if int64(c.in.size)+int64(h.length) > windowBytes {
		return false
	}
	if c.closed {
		c.receive.forwarded += h.length
		c.tell()
		return true
	}
	for left := int(h.length); left > 0; {
		space := c.in.space(left)
		n := payload.read(space)
		c.in.commit(n)
		left -= n
	}
	if h.length > 0 {
		c.readable.Broadcast()
	}
	return true
}

// handleShutdown. A guest that has ended both directions waits for opReset until
// it forgets its socket. What it sent before can still be read here.
func (c *Conn) handleShutdown(flags uint32) {
	c.guestShut |= flags & shutBoth
	if c.guestShut == shutBoth {
		c.reset(nil)
		return
	}
	if c.guestShut&shutReceive != 0 {
		c.out.clear()
		c.stopAsking()
		c.device.queue.add(c) // for what waited behind the data
	}
	c.wake()
}
