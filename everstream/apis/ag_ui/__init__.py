"""AG-UI's protocol, which TanStack AI speaks, too."""
