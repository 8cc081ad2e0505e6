"""What browsers use instead of keys: sessions, tickets, share links. `web.access` checks them."""
