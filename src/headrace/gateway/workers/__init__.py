"""Several processes behind one port: workers ask remote backends, their supervisor has the rest."""
