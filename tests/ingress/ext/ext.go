// Package ext is where a build of Traefik may add settings of its own. Traefik needs it, but nobody serves it as a module.
// This one adds nothing, as Traefik's own does.
package ext

// HTTP adds to what there is beside routers and services.
type HTTP struct{}

// Router adds to what a router has.
type Router struct{}
