"""The way back: what bounces, complaints and automatic replies say, and what follows for touch and recipient."""
