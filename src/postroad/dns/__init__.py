"""DNS: a resolver, the standards of email that publish records in DNS, and checks of a domain against them."""
