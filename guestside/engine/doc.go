// Package engine finds the container engines of a guest and asks them, through
// the API of Docker, which Podman serves too.
//
// Theory of operation. An engine listens on a unix socket: at one of the usual
// places, or where the flags of a running dockerd say. Each question is an HTTP
// request on a connection of its own: questions are rare, and an engine may be
// restarted in between. Follow holds one connection open on which the engine
// tells of its events.
//
// Whoever made the socket answers, and may be broken or hostile. So each
// question is bounded in time and in bytes, and Follow in bytes per second;
// nothing that an engine sends takes more memory than these bounds. Text from
// an engine is as it came: who shows it cleans it.
//
// A service manager may listen in place of an engine that does not run, and
// start it when somebody connects. Activated tells such sockets.
package engine
