module tiers.dev/lab/pause

go 1.26
