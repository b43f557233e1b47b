"""A dozen queries and passages of several lengths and scripts, for comparing two forms of a model where there is no data."""

QUERIES = (
    "how do I undo the last git commit",
    "what causes the tides",
    "capital of Australia",
    "python read a file line by line",
    "why is the sky blue",
    "symptoms of iron deficiency",
    "how long to boil an egg",
    "difference between TCP and UDP",
    "如何学习弹吉他",
    "wie funktioniert eine Wärmepumpe",
    "who wrote Middlemarch",
    "convert degrees Celsius to Fahrenheit",
)
PASSAGES = (
    "Use `git reset --soft HEAD~1`: the commit is gone and its changes stay staged. With `--hard` they are lost, too.",
    "The Moon's gravity pulls the oceans into two bulges, one on each side; as the Earth turns, coasts pass through them.",
    "Canberra has been the seat of Australia's government since 1927.",
    "with open(path) as file: and then for line in file: gives one line after another without reading the whole file.",
    "Air scatters short wavelengths far more than long ones (Rayleigh scattering), so blue light comes from all directions.",
    "Tiredness, pale skin, shortness of breath and brittle nails can be signs that the body lacks iron; a blood test tells.",
    "Six minutes for a soft yolk, nine for a firm one; then into cold water, which stops the cooking and eases peeling.",
    "TCP sets up a connection, numbers what it sends and sends again what was lost; UDP sends datagrams and forgets them.",
    "先学会几个基本和弦，每天练习二十分钟换和弦，然后从简单的歌曲开始弹。",
    "Ein Kältemittel verdampft bei niedriger Temperatur, wird verdichtet und gibt die Wärme im Haus wieder ab.",
    "George Eliot, the pen name of Mary Ann Evans, published the novel in instalments in 1871 and 1872.",
    "Multiply by nine fifths and add thirty-two: water boils at 212.",
)
