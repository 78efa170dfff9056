// Package dns in place of the one that asks a hundred hosters of names: the lab's gateway has its certificate from the lab.
package dns

import (
	"fmt"

	"github.com/go-acme/lego/v4/challenge"
)

// NewDNSChallengeProviderByName is what Traefik asks for a hoster by.
func NewDNSChallengeProviderByName(name string) (challenge.Provider, error) {
	return nil, fmt.Errorf("%s: no hoster of names is built in", name)
}
