package vhostvsock

import "sync"

const chunkBytes = 32 << 10

type chunk struct {
	data       [chunkBytes]byte
	start, end int
	next       *chunk
}

// buffer is a queue of bytes, made of chunks that are shared by all connections:
// an idle connection holds none.
type buffer struct {
	chunks     *sync.Pool
	head, tail *chunk
	size       int
}

func newChunks() *sync.Pool {
	return &sync.Pool{New: func() any { return new(chunk) }}
}

// space is free memory at the end, at most max bytes and at least one. What was
// put there becomes part of the queue by commit.
func (b *buffer) space(limit int) []byte {
	if b.tail == nil || b.tail.end == chunkBytes {
		c := b.chunks.Get().(*chunk)
		c.start, c.end, c.next = 0, 0, nil
		if b.tail == nil {
			b.head = c
		} else {
			b.tail.next = c
		}
		b.tail = c
	}
	return b.tail.data[b.tail.end:min(chunkBytes, b.tail.end+limit)]
}

func (b *buffer) commit(n int) {
	b.tail.end += n
	b.size += n
}

// front is the start of the queue, at most limit bytes of it.
func (b *buffer) front(limit int) []byte {
	return b.head.data[b.head.start:min(b.head.end, b.head.start+limit)]
}

func (b *buffer) discard(n int) {
	b.head.start += n
	b.size -= n
	if b.head.start < b.head.end {
		return
	}
	c := b.head
	b.head = c.next
	if b.head == nil {
		b.tail = nil
	}
	b.chunks.Put(c)
}

func (b *buffer) write(p []byte) {
	for len(p) > 0 {
		n := copy(b.space(len(p)), p)
		b.commit(n)
		p = p[n:]
	}
}

func (b *buffer) read(p []byte) int {
	total := 0
	for total < len(p) && b.size > 0 {
		n := copy(p[total:], b.front(len(p)-total))
		b.discard(n)
		total += n
	}
	return total
}

func (b *buffer) clear() {
	for b.head != nil {
		b.discard(b.head.end - b.head.start)
	}
}
