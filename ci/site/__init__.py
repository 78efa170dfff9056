"""Documentation site: the pages of this repository and the API reference, built by Sphinx. docs/adr/029-documentation-site.md"""
