"""Pictures of a chain: in the terminal, as Mermaid and as SVG, all from one outline."""
