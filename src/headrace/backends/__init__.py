"""Who answers: provider rows, remote calls and local engines, all behind the Backend protocol."""
