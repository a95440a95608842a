package vhostvsock

// chain is the memory of one descriptor chain, in order, and a place in it.
type chain struct {
	head  uint16
	parts [][]byte
	left  uint64 // bytes after the place
}

// read copies from the chain, and returns less than len(p) only at its end.
func (c *chain) read(p []byte) int {
	n := 0
	for n < len(p) && len(c.parts) > 0 {
		k := copy(p[n:], c.parts[0])
		n += k
		c.advance(k)
	}
	return n
}

// write copies to the chain, and returns less than len(p) only at its end.
func (c *chain) write(p []byte) int {
	n := 0
	for n < len(p) && len(c.parts) > 0 {
		k := copy(c.parts[0], p[n:])
		n += k
		c.advance(k)
	}
	return n
}

func (c *chain) advance(n int) {
	c.left -= uint64(n)
	if n == len(c.parts[0]) {
		c.parts = c.parts[1:]
		return
	}
	c.parts[0] = c.parts[0][n:]
}
