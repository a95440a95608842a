// Package acceptance tests what users will check, with the real thing: the
// programs as they are built, real clients and servers, a real Docker engine.
//
// Each test names the rows of the acceptance list that it holds: TestA1... is
// row A1.
//
// Theory of operation. A bed is a host and a guest: two network namespaces of
// their own with an agent in one and a daemon in the other, so that any number
// of tests, and of test runs, go on at once and use whatever ports they like.
// The test program itself has sockets in both: a socket belongs to the namespace
// of the thread that made it, wherever it is used. So most tests are a few lines
// about connections, and the programs between them are the product and nothing
// else. netcat and Docker's containers come in where the row is about them. What
// localhost of the guest shows is compared with a third namespace, which serves
// by itself and has nothing of ours: nobody should be able to tell them apart.
//
// Nobody sleeps: a test waits for what it expects, on the event stream of
// vmbridge ports --watch or by trying, with a deadline. Under the race detector
// the product is built with it too, and a report of it in any log fails the test.
// Tests that count milliseconds, connections or bytes of memory use programs
// without it.
//
// It takes root, for the namespaces; the tests skip without.
package acceptance
