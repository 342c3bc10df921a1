"""What other registries know, as registrations of ours. `consul.py` and `eureka.py` are pure: documents to values."""
