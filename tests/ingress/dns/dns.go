// Package dns takes the place of a package of Traefik's ACME client, which has the provider of every DNS service that there
// is, and their clients with it: hundreds of packages that nothing here asks for. It knows none.
package dns

import (
	"fmt"

	"github.com/go-acme/lego/v5/challenge"
)

// NewDNSChallengeProviderByName says that there is no such provider.
func NewDNSChallengeProviderByName(name string) (challenge.Provider, error) {
	return nil, fmt.Errorf("built without DNS providers: %s", name)
}
